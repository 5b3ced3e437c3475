SELECT m.id::text, json_build_object(
    'id', m.id::text, 'title', m.title, 'year', m.year, 'score', m.score::text,
    'distributor', (SELECT json_build_object('id', d.id, 'name', d.name) FROM distributor d WHERE d.id = m.distributor_id),
    'genres', coalesce((SELECT json_agg(json_build_object('code', g.code, 'label', g.label) ORDER BY g.code)
        FROM movie_genre mg JOIN genre g ON g.code = mg.genre_code WHERE mg.movie_id = m.id), '[]'),
    'cast', coalesce((SELECT json_agg(json_build_object('role', mt.role,
            'talent', json_build_object('id', t.id::text, 'name', t.name, 'born', t.born::text)) ORDER BY t.id)
        FROM movie_talent mt JOIN talent t ON t.id = mt.talent_id WHERE mt.movie_id = m.id), '[]'),
    'awards', coalesce((SELECT json_agg(json_build_object('id', a.id, 'title', a.title,
            'talent', (SELECT json_build_object('id', t.id::text, 'name', t.name) FROM talent t WHERE t.id = a.talent_id)) ORDER BY a.id)
        FROM award a WHERE a.movie_id = m.id), '[]'),
    'screenings', coalesce((SELECT json_agg(json_build_object('id', s.id::text, 'startsAt', s.starts_at, 'hall', s.hall) ORDER BY s.starts_at, s.id)
        FROM (SELECT * FROM screening WHERE movie_id = m.id ORDER BY starts_at, id LIMIT 3) s), '[]'),
    'screeningCount', (SELECT count(*) FROM screening s WHERE s.movie_id = m.id))::text
FROM movie m
