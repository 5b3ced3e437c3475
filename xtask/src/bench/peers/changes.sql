-- One row of every type, then changes of every kind.
insert into everything values (1, 'true', 'false', '-32768', '2147483647', '-9223372036854775808', '4294967295', '0.1', 'NaN', '1.7976931348623157e308', '-Infinity', '-12.5', '12345', '123456789012345678901234567890.5', 'NaN', '-1234.50', 'a "b" \ 
 ü 🎬', '', 'abc', 'ab', 'relname', 'x', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{ "a":1 }', '{"b":1, "a":2}', '<a/>', '192.168.0.1/24', '10.0.0.0/8', '08:00:2b:01:02:03', 'sad', '2020-02-29', '0044-03-15 BC', 'infinity', '12:34:56.789012', '12:34:56.789', '24:00:00', '2020-01-02 03:04:05.123456', '2020-01-02 03:04:05.123', 'infinity', '-infinity', '2020-01-02 03:04:05.123456+02', '2020-01-02 03:04:05+00', 'infinity', '13:51:30.5+02', '1 year 2 mons 3 days 04:05:06.5', '-1 day 00:00:01', '\xdeadbeef', '', '1', '1000000001', '101', '7', '{1,2}', '{1,NULL,3}', '{}', '[0:1]={4,5}', '{{1,2},{3,4}}', '{a,"b \"c\" {,}",NULL,""}', '{1.5}', '{2020-01-02 03:04:05+00}', '{sad,ok}', '{"\\xff"}', '(1,2)', '{1,2,3}', '(3,4),(1,2)', '<(1,2),3>', 'a=>1, "b \"c"=>NULL', '{"a=>1"}', 'Mixed', 'top.science', '(1, 2)', '08:00:2b:01:02:03:04:05', 'pg_class', 'fat & rat', '(1.5,)', '[2020-01-01 00:00:00+00,)', '{[1,3),[5,7)}', '3', 'Infinity', '-infinity', '1:2:', '$.a', '[2:3]={a,b}', '{{{1},{2}},{{3},{4}}}', '{(3,4),(1,2);(1,1),(0,0)}', '[1,5)', 'a fat cat', '(1,x)', '1 2', '16/B374D848', 'NULL', '2020-01-02 03:04:05.5+00', '2020-01-02 03:04:05+00', '13:51:30.5+02', '12:34:56', null);
insert into kinds values (1, 1, repeat('a', 5000)), (2, 2, 'b'); update kinds set n = n + 1; update kinds set id = id + 10; delete from kinds where id = 12;
insert into whole values (1, 1, repeat('a', 5000)), (2, 2, 'b'); update whole set n = n + 1; update whole set id = id + 10; delete from whole where id = 12;
insert into pairs values (1, 2, 'x'); update pairs set x = 'y'; delete from pairs;
insert into nokey values (1, 'x'); update nokey set y = 'z'; delete from nokey;
begin; insert into pairs values (7, 8, 'x'); insert into kinds values (50, 1, null); commit;
select pg_logical_emit_message(true, 'outbox', 'hello');
select pg_logical_emit_message(false, 'outbox', 'hello out');
truncate kinds, whole;
