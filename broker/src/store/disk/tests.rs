use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use super::*;
use crate::testing::Dir;

/// Rows of the table that says which shards have what.
#[derive(Default)]
struct SpreadRows(Vec<(u64, u16, u16)>);

impl Reader for SpreadRows {
    fn session(&mut self, _session: u64, _value: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn subscription(&mut self, _: u64, _filter: &str, _value: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn body(&mut self, _body: u64, _value: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn entry(&mut self, _session: u64, _seq: u64, _value: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn received(&mut self, _session: u64, _id: u16, _value: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn spread(&mut self, session: u64, id: u16, shard: u16) -> Result<(), StoreError> {
        self.0.push((session, id, shard));
        Ok(())
    }

    fn retained(&mut self, _topic: &str, _value: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }
}

fn settings(dir: &Dir, sync: Sync) -> Persistence {
    let config = Persistence {
        directory: dir.path("store"),
        sync,
        max_bytes: u64::MAX,
        min_free_bytes: 0,
        patience: Duration::from_secs(10),
    };
    Disk::make_directory(&config.directory, sync).unwrap();
    config
}

fn rows(disk: &mut Disk) -> Vec<(u64, u16, u16)> {
    let mut rows = SpreadRows::default();
    disk.read(&mut rows).unwrap();
    rows.0
}

/// A batch with one row, and with a message that takes some pages.
fn batch(number: u64) -> Batch {
    let mut batch = Batch::default();
    let key = (SessionId(number), 1, 1);
    batch.spread.insert(key, Some(Vec::new()));
    let body = vec![u8::try_from(number).unwrap(); 20_000];
    batch.bodies.insert(BodyId(number), Some(body));
    batch
}

#[test]
fn shards_are_others_when_what_was_said_of_them_is_gone() {
    let dir = Dir::new();
    let config = settings(&dir, Sync::Process);
    let open = |shards| Disk::open(&config, "n", shards).unwrap();
    let key = (SessionId(1), 2, 3);
    let mut batch = Batch::default();
    batch.spread.insert(key, Some(Vec::new()));
    let mut disk = open(8);
    assert_eq!(disk.shards_before(), Some(8));
    disk.write(&batch).unwrap();
    drop(disk);
    // Once that ends before it has done anything, and once more.
    for _ in 0..2 {
        let mut disk = open(4);
        assert_eq!(disk.shards_before(), Some(8));
        assert_eq!(rows(&mut disk), [(1, 2, 3)]);
    }
    let mut disk = open(4);
    disk.read(&mut SpreadRows::default()).unwrap();
    let before = disk.bytes();
    batch.spread.insert(key, None);
    disk.settle(4, &batch).unwrap();
    assert_eq!(disk.bytes(), before - 12);
    drop(disk);
    let mut disk = open(4);
    assert_eq!(disk.shards_before(), Some(4));
    assert_eq!(rows(&mut disk), []);
}

/// A batch that takes the row of another away. Once more it changes nothing, so nothing of what it has
/// changed is written once more.
fn removal(number: u64) -> Batch {
    let mut batch = Batch::default();
    batch.spread.insert((SessionId(number), 1, 1), None);
    batch
}

#[test]
fn what_a_failed_sync_left_out_is_on_the_disk_when_a_later_write_counts() {
    for good in 0.. {
        let dir = Dir::new();
        let config = settings(&dir, Sync::Disk);
        let faults = faults::of(&config.directory);
        let file = config.directory.join("store.redb");
        let mut disk = Disk::open(&config, "n", 1).unwrap();
        disk.write(&batch(1)).unwrap();
        disk.write(&batch(2)).unwrap();
        faults.follow(&file);
        faults.fail_sync(good);
        let failed = disk.write(&removal(2));
        if !faults.has_failed() {
            assert!(good > 0, "a write without a sync");
            failed.unwrap();
            break;
        }
        failed.unwrap_err();
        // The second time also what is to catch up fails.
        faults.fail_sync(0);
        disk.write(&removal(2)).unwrap_err();
        disk.write(&removal(2)).unwrap();
        let bytes = disk.bytes();
        let there = faults.platter();
        drop(disk);
        fs::write(&file, there).unwrap();
        let mut disk = Disk::open(&config, "n", 1).unwrap();
        assert_eq!(rows(&mut disk), [(1, 1, 1)], "{good}");
        assert_eq!(bytes, disk.bytes(), "{good}");
    }
}

#[test]
fn start_without_room_is_said_to_be_that_and_loses_nothing() {
    let dir = Dir::new();
    let config = settings(&dir, Sync::Process);
    let mut disk = Disk::open(&config, "n", 1).unwrap();
    disk.write(&batch(1)).unwrap();
    let file = config.directory.join("store.redb");
    // As after a crash: there is something to be repaired.
    let there = fs::read(&file).unwrap();
    drop(disk);
    fs::write(&file, there).unwrap();
    faults::begin(&config.directory);
    let refused = Disk::open(&config, "n", 1).map(drop).unwrap_err();
    assert!(matches!(refused, StoreError::NoRoom { .. }), "{refused:?}");
    assert!(!refused.to_string().contains("move it away"), "{refused}");
    faults::end(&config.directory);
    assert_eq!(rows(&mut Disk::open(&config, "n", 1).unwrap()), [(1, 1, 1)]);
    // What is damaged is something else.
    fs::write(&file, "no database").unwrap();
    let refused = Disk::open(&config, "n", 1).map(drop).unwrap_err();
    assert!(matches!(refused, StoreError::Open { .. }), "{refused:?}");
}

#[test]
fn store_of_the_version_before_is_read_and_becomes_one_of_this() {
    let dir = Dir::new();
    let config = settings(&dir, Sync::Process);
    let set_format = |config: &Persistence, format: u32| {
        let mut disk = Disk::open(config, "n", 1).unwrap();
        disk.write(&batch(1)).unwrap();
        let database = disk.database.as_ref().unwrap();
        write_meta(database, &[(FORMAT_KEY, &format.to_be_bytes())]).unwrap();
    };
    set_format(&config, 1);
    let mut disk = Disk::open(&config, "n", 1).unwrap();
    assert_eq!(rows(&mut disk), [(1, 1, 1)]);
    let signed = signature(disk.database.as_ref().unwrap()).unwrap().unwrap();
    assert_eq!(signed.format, FORMAT.to_be_bytes());
    for format in [0, FORMAT + 1] {
        let dir = Dir::new();
        let config = settings(&dir, Sync::Process);
        set_format(&config, format);
        let refused = Disk::open(&config, "n", 1).map(drop).unwrap_err();
        assert!(
            matches!(refused, StoreError::Format { found, .. } if found == format),
            "{refused:?}"
        );
    }
}

#[test]
fn directories_are_synced_that_have_a_new_one_in_them() {
    let dir = Dir::new();
    let top = dir.path("");
    let path = dir.path("a/b/c");
    let mut synced = Vec::new();
    let mut note = |parent: &Path| {
        // What is below is made when the disk has this.
        assert!(!path.is_dir() || parent.ends_with("b"));
        synced.push(parent.to_owned());
        Ok(())
    };
    make(&dir.path("a"), &mut note).unwrap();
    make(&path, &mut note).unwrap();
    make(&path, &mut note).unwrap();
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let expected = [top, dir.path("a"), dir.path("a/b")];
    let is_same = |(synced, expected): (&PathBuf, &PathBuf)| {
        synced.canonicalize().unwrap() == expected.canonicalize().unwrap()
    };
    assert!(synced.iter().zip(&expected).all(is_same) && synced.len() == 3);
    // A file in the way is none.
    fs::write(dir.path("file"), "").unwrap();
    make(&dir.path("file/x"), &mut |_parent| Ok(())).unwrap_err();
    Disk::make_directory(&dir.path("x/y"), Sync::Disk).unwrap();
}
