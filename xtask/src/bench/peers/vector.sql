-- Types of pgvector.
create extension vector;
create table of_vector (id int primary key, dense vector(3), half halfvec(3), sparse sparsevec(5), missing vector(2));
-- Changes.
insert into of_vector values (1, '[1,-2.5,1e-7]', '[1,2.5,-3]', '{1:1.5,3:-2}/5', null);
update of_vector set dense = '[0,0,0]';
