//! Doors to what reads bytes that come from a server, for the fuzz targets beside this crate (`connector/fuzz`). Nothing else may use
//! them: they promise nothing.

/// MySQL and MariaDB.
pub mod mysql {
    pub use crate::mysql::fuzzing::{document, event, events, packets, payload, positions, rows, value};
}

/// PostgreSQL.
pub mod postgres {
    pub use crate::postgres::fuzzing::{frames, messages, value};
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use proptest::prelude::*;

    /// Database and name of each door, and the door.
    type Door = (&'static str, &'static str, fn(&[u8]));

    macro_rules! doors {
        ($($database:ident::$door:ident),* $(,)?) => {
            [$((stringify!($database), stringify!($door), super::$database::$door as fn(&[u8]))),*]
        };
    }

    const DOORS: [Door; 11] = doors![
        mysql::document,
        mysql::event,
        mysql::events,
        mysql::packets,
        mysql::payload,
        mysql::positions,
        mysql::rows,
        mysql::value,
        postgres::frames,
        postgres::messages,
        postgres::value,
    ];

    /// Nothing else compiles the targets.
    #[test]
    fn each_door_has_a_target_and_each_target_its_door() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file");
        let (manifest, readme) = (read("Cargo.toml"), read("README.md"));
        for (database, door, _) in DOORS {
            let (name, path) = (format!("{database}_{door}"), format!("fuzz_targets/{database}_{door}.rs"));
            assert!(read(&path).contains(&format!("use tributary_connector::fuzzing::{database}::{door};")), "{path}");
            assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{path}\"\n")), "{name} is in no manifest");
            assert!(readme.contains(&format!("| `{name}` |")), "{name} is not explained");
        }
        let targets = std::fs::read_dir(folder.join("fuzz_targets")).expect("a folder").flatten();
        let targets: BTreeSet<String> = targets.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        let doors = DOORS.map(|(database, door, _)| format!("{database}_{door}.rs"));
        assert_eq!(targets, BTreeSet::from(doors));
    }

    proptest! {
        /// Small ones among them, which are plausible sizes and numbers.
        #[test]
        fn doors_take_whatever_comes(data in proptest::collection::vec(prop_oneof![any::<u8>(), 0..20_u8], 0..300)) {
            for (_, _, door) in DOORS {
                door(&data);
            }
        }
    }
}
