//! Names of what is stored, below the prefix of the configuration.

/// What can follow in a key.
pub(super) struct Keys(String);

/// The two kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Pairs,
    Kept,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self(prefix.trim_end_matches('/').to_owned())
    }

    pub(super) fn prefix(&self) -> &str {
        &self.0
    }

    /// The format of the records and the name of their key.
    pub(super) fn about(&self) -> String {
        format!("{}/about", self.0)
    }

    /// There while there is a writer.
    pub(super) fn writer(&self) -> String {
        format!("{}/writer", self.0)
    }

    /// Who was the writer last.
    pub(super) fn owner(&self) -> String {
        format!("{}/owner", self.0)
    }

    /// The last batch that was written, and by whom.
    pub(super) fn last(&self) -> String {
        format!("{}/last", self.0)
    }

    pub(super) fn record(&self, table: Table, spi: u32) -> String {
        format!("{}{spi:08x}", self.table(table))
    }

    /// The number of the last run.
    pub(super) fn run(&self) -> String {
        format!("{}/run", self.0)
    }

    pub(super) fn ike(&self, spi: u64) -> String {
        format!("{}{spi:016x}", self.all_ike())
    }

    /// What all keys of IKE SAs begin with.
    pub(super) fn all_ike(&self) -> String {
        format!("{}/ike/", self.0)
    }

    /// The SPI in the key of an IKE SA.
    pub(super) fn ike_spi(&self, key: &[u8]) -> Option<u64> {
        let digits = key.strip_prefix(self.all_ike().as_bytes())?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    /// What all keys of a table begin with.
    pub(super) fn table(&self, table: Table) -> String {
        let name = match table {
            Table::Pairs => "pair",
            Table::Kept => "kept",
        };
        format!("{}/{name}/", self.0)
    }

    /// The SPI in a record's key.
    pub(super) fn spi(&self, table: Table, key: &[u8]) -> Option<u32> {
        let digits = key.strip_prefix(self.table(table).as_bytes())?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }
}
