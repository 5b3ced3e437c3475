SELECT m.id::text, json_build_object(
    'id', m.id::text, 'title', m.title, 'year', m.year, 'score', m.score::float8,
    'distributor', (SELECT json_build_object('id', d.id::text, 'name', d.name) FROM distributor d WHERE d.id = m.distributor_id),
    'cast', coalesce((SELECT json_agg(json_build_object('role', mt.role,
            'talent', json_build_object('id', t.id::text, 'name', t.name, 'born', t.born::text)) ORDER BY t.id)
        FROM movie_talent mt JOIN talent t ON t.id = mt.talent_id WHERE mt.movie_id = m.id), '[]'),
    'genres', coalesce((SELECT json_agg(json_build_object('id', g.code, 'label', g.label) ORDER BY g.code)
        FROM movie_genre mg JOIN genre g ON g.code = mg.genre_code WHERE mg.movie_id = m.id), '[]'),
    'awards', coalesce((SELECT json_agg(json_build_object('id', a.id::text, 'title', a.title, 'talent',
            (SELECT json_build_object('id', t.id::text, 'name', t.name, 'born', t.born::text) FROM talent t WHERE t.id = a.talent_id)) ORDER BY a.id)
        FROM award a WHERE a.movie_id = m.id), '[]'),
    'screenings', coalesce((SELECT json_agg(json_build_object('id', s.id::text, 'startsAt', to_char(s.starts_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), 'hall', s.hall) ORDER BY s.starts_at, s.id)
        FROM screening s WHERE s.movie_id = m.id), '[]'))::text
FROM movie m
