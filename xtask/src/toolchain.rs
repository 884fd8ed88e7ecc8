//! The eBPF tool chain and the distribution's packages.

use anyhow::Result;

/// Makes sure that the eBPF programs can be built.
pub(crate) fn ensure() -> Result<()> {
    Ok(())
}

/// Makes sure that these packages of the distribution are installed.
pub(crate) fn packages(_names: &[&str]) -> Result<()> {
    Ok(())
}
