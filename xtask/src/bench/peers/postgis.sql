-- Types of PostGIS.
create extension postgis;
create table of_postgis (id int primary key, point geometry(Point, 4326), line geometry, big geometry(PointZM, 3857), place geography,
    collection geometry, missing geometry);
-- Changes.
insert into of_postgis values (1, 'SRID=4326;POINT(1 2)', 'LINESTRING(0 0, 1 1.5)', 'SRID=3857;POINT ZM (1 2 3 4)',
    'POINT(-122.4 37.8)', 'GEOMETRYCOLLECTION(POINT(1 2), POLYGON((0 0, 1 0, 1 1, 0 0)))', null),
    (2, 'SRID=4326;POINT EMPTY', 'POLYGON EMPTY', null, null, 'MULTIPOINT(1 1, 2 2)', null);
update of_postgis set line = null where id = 1;
