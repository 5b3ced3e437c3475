create table of_mysql (id int primary key, t_json json, t_json_v2 json, t_json_v3 json, t_vector vector(3));
-- Changes.
insert into of_mysql values (1, '{"b": [1, -2, 1.5, true, null, "ü\\"x"], "a": {}}', '18446744073709551615',
    json_array(cast(1.50 as decimal(10,2)), cast('2020-01-02' as date), cast('03:04:05' as time)), string_to_vector('[1,-2.5,3]'));
