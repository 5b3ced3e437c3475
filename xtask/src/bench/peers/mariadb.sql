create table of_mariadb (id int primary key, t_json json, t_uuid uuid, t_inet6 inet6, t_inet4 inet4, t_vector vector(2) not null);
-- Changes.
insert into of_mariadb values (1, '{"b": 1}', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2001:db8::ff00:42:8329', '192.168.0.1', vec_fromtext('[1,-2.5]'));
