create table of_mariadb (id int primary key, t_json json, t_uuid uuid, t_vector vector(2) not null);
-- Changes.
insert into of_mariadb values (1, '{"b": 1}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', vec_fromtext('[1,-2.5]'));
