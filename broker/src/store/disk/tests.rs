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

#[test]
fn shards_are_others_when_what_was_said_of_them_is_gone() {
    let dir = Dir::new();
    let config = Persistence {
        directory: dir.path("store"),
        sync: Sync::Process,
        max_bytes: u64::MAX,
        min_free_bytes: 0,
    };
    Disk::make_directory(&config.directory).unwrap();
    let open = |shards| Disk::open(&config, "n", shards).unwrap();
    let rows = |disk: &mut Disk| {
        let mut rows = SpreadRows::default();
        disk.read(&mut rows).unwrap();
        rows.0
    };
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
