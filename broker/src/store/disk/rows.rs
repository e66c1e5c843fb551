//! All that is stored, row by row.

use redb::{Database, ReadableDatabase, ReadableTable, TableError};

use super::{
    BODIES, ENTRIES, RECEIVED, RETAINED, Reader, SESSIONS, SPREAD, SUBSCRIPTIONS, WriteError,
};

/// Gives each row to a reader, and tells how many bytes they are.
pub(super) fn read<E>(
    database: &Database,
    reader: &mut impl Reader<E>,
    failed: impl Fn(WriteError) -> E,
) -> Result<u64, E> {
    let transaction = database.begin_read().map_err(WriteError::from);
    let transaction = transaction.map_err(&failed)?;
    let mut bytes = 0;
    macro_rules! rows {
        ($table:expr, $length:expr, $visit:expr) => {
            match transaction.open_table($table) {
                Ok(table) => {
                    for row in table.iter().map_err(WriteError::from).map_err(&failed)? {
                        let (key, value) = row.map_err(WriteError::from).map_err(&failed)?;
                        let (key, value) = (key.value(), value.value());
                        bytes += ($length(&key) + value.len()) as u64;
                        $visit(key, value)?;
                    }
                }
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(failed(error.into())),
            }
        };
    }
    rows!(BODIES, |_: &u64| 8, |key, value| reader.body(key, value));
    rows!(SESSIONS, |_: &u64| 8, |key, value| reader
        .session(key, value));
    rows!(
        SUBSCRIPTIONS,
        |key: &(u64, &str)| 8 + key.1.len(),
        |key: (u64, &str), value| reader.subscription(key.0, key.1, value)
    );
    rows!(ENTRIES, |_: &(u64, u64)| 16, |key: (u64, u64), value| {
        reader.entry(key.0, key.1, value)
    });
    rows!(RECEIVED, |_: &(u64, u16)| 10, |key: (u64, u16), value| {
        reader.received(key.0, key.1, value)
    });
    rows!(
        SPREAD,
        |_: &(u64, u16, u16)| 12,
        |key: (u64, u16, u16), _value: &[u8]| reader.spread(key.0, key.1, key.2)
    );
    rows!(RETAINED, |key: &&str| key.len(), |key, value| reader
        .retained(key, value));
    Ok(bytes)
}

/// How many bytes all rows are.
pub(super) fn count(database: &Database) -> Result<u64, WriteError> {
    read(database, &mut Nobody, |error| error)
}

/// Who wants to know of no row what is in it.
struct Nobody;

impl Reader<WriteError> for Nobody {
    fn session(&mut self, _session: u64, _value: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn subscription(&mut self, _: u64, _filter: &str, _value: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn body(&mut self, _body: u64, _value: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn entry(&mut self, _session: u64, _seq: u64, _value: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn received(&mut self, _session: u64, _id: u16, _value: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }

    fn spread(&mut self, _session: u64, _id: u16, _shard: u16) -> Result<(), WriteError> {
        Ok(())
    }

    fn retained(&mut self, _topic: &str, _value: &[u8]) -> Result<(), WriteError> {
        Ok(())
    }
}
