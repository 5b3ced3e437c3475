WITH
movies AS (SELECT *, truth.global_id('Movie', to_json(id::text)) AS global FROM movie),
talents AS (SELECT *, truth.global_id('Talent', to_json(id::text)) AS global FROM talent)
SELECT m.global, json_build_object(
    'id', m.global, 'rowId', m.id::text, 'title', m.title, 'year', m.year, 'score', m.score::text,
    'distributor', (SELECT json_build_object('id', truth.global_id('Distributor', to_json(d.id)), 'name', d.name) FROM distributor d WHERE d.id = m.distributor_id),
    'genres', coalesce((SELECT json_agg(json_build_object('id', truth.global_id('Genre', to_json(g.code)), 'code', g.code, 'label', g.label) ORDER BY g.code)
        FROM movie_genre mg JOIN genre g ON g.code = mg.genre_code WHERE mg.movie_id = m.id), '[]'),
    'cast', coalesce((SELECT json_agg(json_build_object('role', mt.role,
            'talent', json_build_object('id', t.global, 'name', t.name, 'born', t.born::text)) ORDER BY t.id)
        FROM movie_talent mt JOIN talents t ON t.id = mt.talent_id WHERE mt.movie_id = m.id), '[]'),
    'awards', coalesce((SELECT json_agg(json_build_object('id', truth.global_id('Award', to_json(a.id)), 'title', a.title,
            'talent', (SELECT json_build_object('id', t.global, 'name', t.name) FROM talents t WHERE t.id = a.talent_id)) ORDER BY a.id)
        FROM award a WHERE a.movie_id = m.id), '[]'),
    'screenings', json_build_object(
        'totalCount', (SELECT count(*) FROM screening s WHERE s.movie_id = m.id),
        'nodes', coalesce((SELECT json_agg(json_build_object('id', truth.global_id('Screening', to_json(s.id::text)),
                'startsAt', to_char(s.starts_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'), 'hall', s.hall) ORDER BY s.starts_at, s.id)
            FROM (SELECT * FROM screening WHERE movie_id = m.id ORDER BY starts_at, id LIMIT 3) s), '[]')))::text
FROM movies m
