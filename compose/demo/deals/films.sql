-- Movies and who made them, for PostgreSQL, MySQL and MariaDB.
create table movie (id int primary key, title varchar(300) not null, released date, votes int);
create table talent (id int primary key, name varchar(300) not null);
-- A row is an edge.
create table movie_talent (movie_id int not null, talent_id int not null, primary key (movie_id, talent_id));
create index movie_talent_talent_id on movie_talent (talent_id);
