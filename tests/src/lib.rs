//! Tests that cross rooms; see `tests/`. What they share with the fuzz targets is here.

pub mod fuzz;
pub mod model;
pub mod seeds;
pub mod sim;
pub mod store;
