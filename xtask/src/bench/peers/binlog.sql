-- A table with every type, and tables for every kind of change.
create table everything (id int primary key,
    t_tinyint tinyint, t_tinyint_unsigned tinyint unsigned, t_boolean boolean,
    t_smallint smallint, t_smallint_unsigned smallint unsigned,
    t_mediumint mediumint, t_mediumint_unsigned mediumint unsigned,
    t_int int, t_int_unsigned int unsigned, t_int_zerofill int(7) unsigned zerofill,
    t_bigint bigint, t_bigint_unsigned bigint unsigned, t_bigint_unsigned_v2 bigint unsigned,
    t_float float, t_float_7_3 float(7,3), t_double double, t_double_v2 double,
    t_decimal_10_2 decimal(10,2), t_decimal_5_0 decimal(5,0), t_decimal_65_30 decimal(65,30), t_decimal_v2 decimal(10,2),
    t_bit_1 bit(1), t_bit_10 bit(10), t_bit_64 bit(64),
    t_year year, t_year_v2 year,
    t_date date, t_date_v2 date, t_date_v3 date, t_date_v4 date, t_date_v5 date,
    t_time time, t_time_v2 time, t_time_3 time(3), t_time_6 time(6),
    t_datetime datetime, t_datetime_3 datetime(3), t_datetime_6 datetime(6), t_datetime_v2 datetime(6), t_datetime_v3 datetime,
    t_timestamp timestamp null, t_timestamp_3 timestamp(3) null, t_timestamp_6 timestamp(6) null, t_timestamp_v2 timestamp null,
    t_char_4 char(4), t_varchar_5 varchar(5), t_varchar_300 varchar(300), t_latin1 varchar(20) character set latin1,
    t_gbk varchar(20) character set gbk, t_sjis varchar(20) character set sjis, t_koi8r varchar(20) character set koi8r,
    t_utf16 varchar(20) character set utf16, t_text text, t_tinytext tinytext, t_longtext longtext,
    t_binary_4 binary(4), t_varbinary_4 varbinary(4), t_blob blob,
    t_enum enum('a','it''s','ü'), t_enum_v2 enum('a','b'), t_set set('a','b','c'), t_set_v2 set('a','b'),
    t_point point, t_point_v2 point, t_geometry geometry, t_linestring linestring,
    missing text);
create table kinds (id int primary key, n int, body text);
create table pairs (b int, a int, x varchar(10), primary key (a, b));
create table nokey (x int, y text);
create table partitioned (id int primary key, x int) partition by range (id) (partition low values less than (10), partition high values less than maxvalue);
create table myisam (id int primary key, x int) engine = myisam;
create table done (id int primary key);
-- Changes.
insert into everything values (1,
    -128, 255, true, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295, 42,
    -9223372036854775808, 9223372036854775807, 18446744073709551615, 0.1, -1234.567, 1.7976931348623157e308, -0.1,
    -12.5, -99999, -12345678901234567890123456789012345.123456789012345678901234567890, 0,
    b'1', b'1000000001', b'1', 2024, 0,
    '2020-02-29', '9999-12-31', '0000-00-00', '2020-02-00', '0001-01-01',
    '-838:59:59', '00:00:00', '-12:34:56.789', '12:34:56.789012',
    '2020-01-02 03:04:05', '2020-01-02 03:04:05.123', '2020-01-02 03:04:05.123456', '1000-01-01 00:00:00.000001', '0000-00-00 00:00:00',
    '2020-01-02 03:04:05', '1970-01-01 00:00:01.5', '2038-01-19 03:14:07.999999', '0000-00-00 00:00:00',
    'ab', 'abc', repeat('ü', 300), 'ü€', '中文', '日本ｱ', 'привет', 'ü🎬', 'a "b" \\ ü 🎬', '', repeat('x', 70000),
    x'ab00', x'ab00', x'deadbeef', 'it''s', '', 'c,a', '',
    st_geomfromtext('POINT(1 2)'), st_geomfromtext('POINT(1 2)', 3857), st_geomfromtext('POLYGON((0 0,1 0,1 1,0 0))', 3857),
    st_geomfromtext('LINESTRING(0 0,1 1,2 -2)'), null);
insert into everything (id) values (2);
update everything set t_int = 1 where id = 2;
insert into kinds values (1, 1, repeat('a', 5000)), (2, 2, 'b');
update kinds set n = n + 1;
update kinds set id = id + 10;
delete from kinds where id = 12;
replace into kinds values (11, 5, 'replaced');
insert into kinds values (11, 6, 'x') on duplicate key update n = 6;
insert into pairs values (1, 2, 'x');
update pairs set x = 'y';
update pairs set b = 9;
delete from pairs;
insert into nokey values (1, 'x');
update nokey set y = 'z';
delete from nokey;
insert into partitioned values (1, 1), (20, 2);
update partitioned set id = id + 10;
insert into myisam values (1, 1), (2, 2);
update myisam set x = 3;
begin;
insert into pairs values (7, 8, 'x');
insert into kinds values (50, 1, null);
savepoint s;
insert into kinds values (51, 1, null);
rollback to s;
insert into kinds values (52, 1, null);
commit;
begin;
insert into kinds values (60, 1, null);
rollback;
alter table kinds add column more int default 5, modify n bigint;
insert into kinds values (70, 1, 'after', 6);
truncate kinds;
insert into kinds values (80, 1, 'after', 6);
insert into done values (1);
