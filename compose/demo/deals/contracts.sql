-- Who bought which movie, for PostgreSQL, MySQL and MariaDB. The movies may lie in another database.
create table vendor (id int primary key, name varchar(300) not null, country varchar(80));
create table deal (id int primary key, movie_id int not null, vendor_id int, amount_usd int);
create index deal_movie_id on deal (movie_id);
create index deal_vendor_id on deal (vendor_id);
