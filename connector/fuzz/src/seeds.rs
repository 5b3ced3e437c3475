//! Writes inputs to begin with into `corpus/<target>`: small ones of every kind that are made here, and the events of files of a binary
//! log (of MySQL or MariaDB, not encrypted), if such are named.

use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut written = 0;
    let mut write = |target: &str, name: &str, content: &[u8]| -> io::Result<()> {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        written += 1;
        fs::write(folder.join(name), content)
    };
    for (target, name, content) in made() {
        write(target, name, &content)?;
    }
    for path in env::args_os().skip(1) {
        let file = fs::read(&path)?;
        let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (at, group) in groups(&file).into_iter().enumerate() {
            write("mysql_events", &format!("{name}-{at}"), &group)?;
        }
        for (at, event) in events(&file).into_iter().enumerate() {
            write("mysql_event", &format!("{name}-{at}"), &event)?;
            if event[4] == 40 {
                write("mysql_payload", &format!("{name}-{at}"), &event[HEADER..])?;
            }
        }
    }
    println!("{written} inputs in {}", corpus.display());
    Ok(())
}

/// Bytes before the body of an event.
const HEADER: usize = 19;

/// The events of a file, without checksums.
fn events(file: &[u8]) -> Vec<Vec<u8>> {
    let (mut events, mut rest, mut has_checksum) = (Vec::new(), file.get(4..).unwrap_or_default(), false);
    while let Some(size) = rest.get(9..13) {
        let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]) as usize;
        let Some((event, more)) = rest.split_at_checked(size).filter(|_| size > HEADER + 4) else { break };
        rest = more;
        let mut event = event.to_vec();
        let end = event.len();
        if event[4] == 15 {
            // The description says that there are none from here on.
            has_checksum = event[end - 5] == 1;
            event[end - 5] = 0;
        } else if has_checksum {
            event.truncate(end - 4);
        }
        events.push(event);
    }
    events
}

/// The groups of a file with what describes it before each, as `mysql_events` takes them; those of more than 64 kB are left out.
fn groups(file: &[u8]) -> Vec<Vec<u8>> {
    let events = events(file);
    let Some(format) = events.iter().find(|event| event[4] == 15) else { return Vec::new() };
    let mut groups: Vec<Vec<u8>> = Vec::new();
    for event in &events {
        // The GTID, with a tag or without, or none; MariaDB's.
        if matches!(event[4], 33 | 34 | 42 | 162) {
            let position = match event[4] {
                162 => 1,
                34 => 2,
                _ => 0,
            };
            let mut group = vec![position];
            append(&mut group, format);
            groups.push(group);
        }
        if let Some(group) = groups.last_mut() {
            append(group, &named(event));
        }
    }
    groups.retain(|group| group.len() < 64 << 10);
    groups
}

fn append(group: &mut Vec<u8>, event: &[u8]) {
    if let Ok(size) = u16::try_from(event.len()) {
        group.extend_from_slice(&size.to_le_bytes());
        group.extend_from_slice(event);
    }
}

/// A table map with the name that the target captures; other events as they are.
fn named(event: &[u8]) -> Vec<u8> {
    let names = || {
        let at = HEADER + 8;
        let schema = usize::from(*event.get(at)?);
        let table = usize::from(*event.get(at + schema + 2)?);
        event.get(at + schema + table + 4..)
    };
    match names().filter(|_| event[4] == 19) {
        Some(rest) => [&event[..HEADER + 8], b"\x01d\0\x01t\0", rest].concat(),
        None => event.to_vec(),
    }
}

/// An event with a header.
fn event(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut event = vec![0; HEADER];
    event[4] = kind;
    event[9..13].copy_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
    event.extend_from_slice(body);
    event
}

/// A table `d.t` of many types, with the metadata that says everything.
fn table_map() -> Vec<u8> {
    let types = [3, 15, 246, 252, 245, 16, 18, 19, 17, 254, 254, 10, 13, 4, 5, 255];
    let meta = [40, 0, 10, 2, 2, 4, 1, 1, 6, 3, 0, 247, 1, 254, 8, 4, 8, 4];
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, types.len() as u8];
    body.extend_from_slice(&types);
    body.push(meta.len() as u8);
    body.extend_from_slice(&meta);
    body.extend_from_slice(&[0xff, 0xff]);
    // Signs, a collation for all texts, names, labels, the kind of geometry, the key.
    body.extend_from_slice(&[1, 1, 0x40, 2, 1, 45]);
    let names: Vec<u8> = (0..types.len() as u8).flat_map(|at| [1, b'a' + at]).collect();
    body.extend_from_slice(&[&[4, names.len() as u8][..], &names].concat());
    body.extend_from_slice(&[6, 5, 2, 1, b'x', 1, b'y', 7, 1, 1, 8, 1, 0]);
    body
}

/// A row of that table.
fn row() -> Vec<u8> {
    let mut row = vec![0, 0];
    row.extend_from_slice(&[1, 0, 0, 0]);
    row.extend_from_slice(b"\x03abc");
    row.extend_from_slice(&[0x80, 0, 0, 1, 50]);
    row.extend_from_slice(b"\x02\0hi");
    row.extend_from_slice(&[DOCUMENT.len() as u8, 0, 0, 0]);
    row.extend_from_slice(DOCUMENT);
    row.extend_from_slice(&[1, 3]);
    row.extend_from_slice(&[0x99, 0xb2, 0x42, 0x12, 0x34, 0, 0, 1]);
    row.extend_from_slice(&[0x80, 0x12, 0x34, 1, 2]);
    row.extend_from_slice(&[0x5e, 0, 0, 0]);
    row.push(1);
    row.extend_from_slice(b"\x02xy");
    row.extend_from_slice(&[0x21, 0xc8, 0x0f, 120]);
    row.extend_from_slice(&1.5f32.to_le_bytes());
    row.extend_from_slice(&2.5f64.to_le_bytes());
    row.extend_from_slice(&[25, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0]);
    row.extend_from_slice(&[0; 16]);
    row
}

/// `{"a": [1, "x", null], "b": 2.5}`.
const DOCUMENT: &[u8] = &[
    0, 2, 0, 47, 0, 18, 0, 1, 0, 19, 0, 1, 0, 2, 20, 0, 11, 39, 0, b'a', b'b', 3, 0, 19, 0, 5, 1, 0, 12, 13, 0, 4, 0,
    0, 1, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0x40,
];

/// Inputs by their targets, with names.
fn made() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let rows = |width: usize, images: &[Vec<u8>]| {
        let head = [7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 16];
        [&head[..], &vec![0xff; width], &images.concat()].concat()
    };
    let (insert, update) = (rows(2, &[row()]), rows(4, &[row(), row()]));
    let gtid = [&[1][..], &[7; 16], &5u64.to_le_bytes(), &[2], &[0; 23]].concat();
    let query = |text: &str| [&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'd', 0][..], text.as_bytes()].concat();
    let group = |kind: u8, all: &[Vec<u8>]| {
        let mut group = vec![kind];
        all.iter().for_each(|event| append(&mut group, event));
        group
    };
    let begin = [event(33, &gtid), event(2, &query("BEGIN"))];
    let xid = event(16, &[0; 8]);
    let with = |more: &[Vec<u8>]| group(0, &[&begin[..], more, &[xid.clone()]].concat());
    let map = event(19, &table_map());
    let domain = [&9u64.to_le_bytes()[..], &[0; 11]].concat();
    let standalone = [&9u64.to_le_bytes()[..], &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    let map_and = |flags: u8, rows: &[u8]| {
        let map = table_map();
        [&[flags, map.len() as u8][..], &map, rows].concat()
    };
    let server = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    let message = |bytes: &[&[u8]]| {
        let message = bytes.concat();
        [&(message.len() as u16).to_be_bytes()[..], &message].concat()
    };
    let relation = message(&[
        b"R",
        &[0, 0, 0, 9],
        b"public\0t\0d\0\x03\x01id\0",
        &[0, 0, 0, 23, 255, 255, 255, 255],
        b"\0n\0",
        &[0, 0, 6, 164, 255, 255, 255, 255],
        b"\0t\0",
        &[0, 0, 0, 25, 255, 255, 255, 255],
    ]);
    let tuple = |kind: u8| [&[0, 3, kind, 0, 0, 0, 1, b'7', kind, 0, 0, 0, 3, b'1', b'.', b'5', b'u'][..]].concat();
    let begin_pg = message(&[b"B", &[0; 20]]);
    let commit_pg = message(&[b"C", &[0; 25]]);
    let all_pg = [
        vec![0],
        begin_pg,
        relation,
        message(&[b"I", &[0, 0, 0, 9], b"N", &tuple(b't')]),
        message(&[b"U", &[0, 0, 0, 9], b"O", &tuple(b't'), b"N", &tuple(b'b')]),
        message(&[b"D", &[0, 0, 0, 9], b"K", &tuple(b't')]),
        message(&[b"T", &[0, 0, 0, 1, 0, 0, 0, 0, 9]]),
        message(&[b"Y", &[0, 0, 0, 99], b"public\0mood\0"]),
        message(&[b"O", &[0; 8], b"origin\0"]),
        message(&[b"M\x01", &[0; 8], b"prefix\0", &[0, 0, 0, 2], b"hi"]),
        commit_pg,
    ]
    .concat();
    let data = [&b"w"[..], &[0; 24], b"C", &[0; 25]].concat();
    let frame = [&b"d"[..], &(data.len() as u32 + 4).to_be_bytes(), &data].concat();
    let keepalive = [&b"d\0\0\0\x16k"[..], &[0; 17]].concat();
    let mut all = vec![
        ("mysql_events", "insert", with(&[map.clone(), event(30, &insert)])),
        ("mysql_events", "update", with(&[map.clone(), event(31, &update)])),
        ("mysql_events", "delete", with(&[map.clone(), event(32, &insert)])),
        (
            "mysql_events",
            "savepoint",
            with(&[
                event(2, &query("SAVEPOINT `a`")),
                map.clone(),
                event(30, &insert),
                event(2, &query("ROLLBACK TO `a`")),
            ]),
        ),
        ("mysql_events", "definition", group(0, &[event(33, &gtid), event(2, &query("ALTER TABLE d.t ADD x int"))])),
        ("mysql_events", "truncate", group(0, &[event(33, &gtid), event(2, &query("TRUNCATE TABLE `d`.`t`"))])),
        (
            "mysql_events",
            "xa",
            group(
                0,
                &[
                    event(33, &gtid),
                    event(2, &query("XA START X'61',X'',1")),
                    map.clone(),
                    event(30, &insert),
                    event(38, &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a']),
                    event(33, &gtid),
                    event(2, &query("XA COMMIT X'61',X'',1")),
                ],
            ),
        ),
        ("mysql_events", "mariadb", group(1, &[event(162, &domain), map.clone(), event(23, &insert), xid.clone()])),
        ("mysql_events", "standalone", group(1, &[event(162, &standalone), event(2, &query("DROP TABLE t"))])),
        (
            "mysql_events",
            "anonymous",
            group(2, &[event(34, &gtid), event(2, &query("BEGIN")), map.clone(), event(30, &insert), xid.clone()]),
        ),
        ("mysql_events", "rotate", group(2, &[event(4, b"\x04\0\0\0\0\0\0\0bin.000002"), event(27, b"bin.000002")])),
        ("mysql_event", "gtid", event(33, &gtid)),
        (
            "mysql_event",
            "tagged",
            event(
                42,
                &[
                    2, 44, 4, 0, 2, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 14, 4, 36, 6, 4, b'a',
                    b'b',
                ],
            ),
        ),
        ("mysql_event", "heartbeat", event(41, &[1, 3, b'b', b'i', b'n', 2, 1, 4, 0])),
        ("mysql_rows", "insert", map_and(0, &insert)),
        ("mysql_rows", "update", map_and(1, &update)),
        ("mysql_rows", "delete", map_and(2, &insert)),
        ("mysql_payload", "plain", [&[2, 1, 255, 0][..], &xid].concat()),
        (
            "mysql_payload",
            "zlib",
            vec![0x81, 4, 0x78, 0x9c, 0x4b, 0x4c, 0x4a, 0x4e, 0x01, 0x00, 0x03, 0xd8, 0x01, 0x8b],
        ),
        (
            "mysql_document",
            "object",
            [&(DOCUMENT.len() as u16).to_le_bytes()[..], DOCUMENT, b"\0\x06$.a[0]\x03\x05\x07\x00\x02\x03$.b"].concat(),
        ),
        ("mysql_positions", "gtids", format!("{server}:1-5:7:mysqlsh:1-7,{server}:9#3|{server}:6").into_bytes()),
        ("mysql_positions", "domains", b"0-1-7,1-1-3".to_vec()),
        ("mysql_packets", "error", b"\x11\0\0\0\xff\x15\x04#28000no entry".to_vec()),
        (
            "mysql_packets",
            "greeting",
            [
                &b"\x4a\0\0\0\x0a9.7.4\0\x08\0\0\0abcdefgh\0\xff\xff\xff\x02\0\xff\xdf\x15"[..],
                &[0; 10],
                b"ijklmnopqrst\0caching_sha2_password\0",
            ]
            .concat(),
        ),
        ("postgres_messages", "all", all_pg),
        ("postgres_frames", "stream", [frame, keepalive].concat()),
    ];
    let values: [&[u8]; 16] = [
        b"\x01\x02\x03\x04\x05\x06\x07\x08",
        b"2020-02-29 12:34:56.789012+01",
        b"-838:59:59.000001",
        b"{1,NULL,\"a\"}",
        b"-1234.50",
        b"\\x00ff",
        b"1 year 2 mons -3 days 04:05:06.7",
        b"\0\0\0\x01\0\0\0\0\0\0\0\x17\0\0\0\x01\0\0\0\x01\0\0\0\x04\0\0\0\x07",
        b"\0\x02\0\0\0\0\0\x02\0\x01\x13\x88",
        b"(1.5,-2)",
        b"[1,2.5,3]",
        b"{1:1.5,3:2}/5",
        b"\"a\"=>\"b\", c=>NULL",
        b"$1,234.50",
        b"0101000020E6100000000000000000F03F0000000000000040",
        b"12:34:56.789-05:30",
    ];
    for kind in 0..64 {
        for (at, raw) in values.iter().enumerate().filter(|(at, _)| (at + kind as usize).is_multiple_of(4)) {
            // The names of files do not matter, as long as they differ.
            let name: &'static str = format!("{kind}-{at}").leak();
            all.push(("mysql_value", name, [&[kind, at as u8 * 17][..], raw].concat()));
            all.push(("postgres_value", name, [&[kind & 31 | (kind & 32) << 1, at as u8 * 17][..], raw].concat()));
        }
    }
    all.push(("mysql_value", "document", [&[16, 0][..], DOCUMENT].concat()));
    all
}
