SELECT d.day::text, json_build_object(
    'id', d.day::text, 'title', d.title,
    'screenings', coalesce((SELECT json_agg(json_build_object('number', s.number::text, 'hall', s.hall,
            'country', (SELECT json_build_object('code', c.code, 'name', c.name) FROM country c WHERE c.code = s.country)) ORDER BY s.number)
        FROM screening s WHERE s.day = d.day), '[]'))::text
FROM day d
