//! Which rows are run. The whole product takes too long for every day, so usually a part of it is,
//! in which each value of each column meets each value of each other one.

use super::matrix::{Cipher, Inner, Proof, Rekey, Row, Side};
use std::collections::HashSet;

/// Two values that meet in a row, each with the number of its column.
type Pair = [(usize, String); 2];

/// Who begins, how both prove who they are and who renews which keys: all that there is of these
/// three, and each pair with the other columns.
pub(super) fn usual() -> Vec<Row> {
    let choices = fill(&[false, true], &Inner::ALL);
    pick(&bases(), &choices)
}

/// The whole product. Ciphers and who deletes change from row to row, so that they meet all the rest
/// here too.
pub(super) fn all() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for nat in [false, true] {
        for inner in Inner::ALL {
            rows.extend(pick(&bases(), &fill(&[nat], &[inner])));
        }
    }
    rows
}

type Base = (Side, Proof, Rekey);
type Choice = (bool, Inner, Cipher, Side);

fn bases() -> Vec<Base> {
    let mut bases = Vec::new();
    for begins in Side::ALL {
        for proof in Proof::ALL.into_iter().filter(|p| p.begun_by(begins)) {
            bases.extend(Rekey::ALL.map(|rekey| (begins, proof, rekey)));
        }
    }
    bases
}

fn fill(nats: &[bool], inners: &[Inner]) -> Vec<Choice> {
    let mut choices = Vec::new();
    for nat in nats {
        for inner in inners {
            for cipher in Cipher::ALL {
                choices.extend(Side::ALL.map(|deletes| (*nat, *inner, cipher, deletes)));
            }
        }
    }
    choices
}

/// For each base the choice by which most pairs meet that have not met yet.
fn pick(bases: &[Base], choices: &[Choice]) -> Vec<Row> {
    let mut met: HashSet<Pair> = HashSet::new();
    let mut rows = Vec::new();
    for (number, (begins, proof, rekey)) in bases.iter().copied().enumerate() {
        // Where several do, not always the first.
        let turned = choices.iter().cycle().skip(number).take(choices.len());
        let candidates = turned.map(|(nat, inner, cipher, deletes)| Row {
            begins,
            proof,
            rekey,
            nat: *nat,
            inner: *inner,
            cipher: *cipher,
            deletes: *deletes,
        });
        let fresh = |row: &Row| {
            pairs(row)
                .iter()
                .filter(|pair| !met.contains(*pair))
                .count()
        };
        // Of equal ones the last.
        if let Some(row) = candidates.max_by_key(fresh) {
            met.extend(pairs(&row));
            rows.push(row);
        }
    }
    rows
}

fn pairs(row: &Row) -> Vec<Pair> {
    let values = [
        format!("{:?}", row.begins),
        format!("{:?}", row.proof),
        format!("{:?}", row.rekey),
        format!("{:?}", row.nat),
        format!("{:?}", row.inner),
        format!("{:?}", row.cipher),
        format!("{:?}", row.deletes),
    ];
    let values: Vec<(usize, String)> = values.into_iter().enumerate().collect();
    let mut pairs = Vec::new();
    for (index, first) in values.iter().enumerate() {
        let later = values.iter().skip(index + 1);
        pairs.extend(later.map(|second| [first.clone(), second.clone()]));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every row that there could be, whatever has been picked.
    fn everything() -> Vec<Row> {
        let mut rows = Vec::new();
        for begins in Side::ALL {
            for proof in Proof::ALL {
                for rekey in Rekey::ALL {
                    for (nat, inner, cipher, deletes) in fill(&[false, true], &Inner::ALL) {
                        rows.push(Row {
                            begins,
                            proof,
                            rekey,
                            nat,
                            inner,
                            cipher,
                            deletes,
                        });
                    }
                }
            }
        }
        rows.retain(|row| row.proof.begun_by(row.begins));
        rows
    }

    fn missing(rows: &[Row]) -> Vec<Pair> {
        let met: HashSet<Pair> = rows.iter().flat_map(pairs).collect();
        let wanted: HashSet<Pair> = everything().iter().flat_map(pairs).collect();
        wanted.difference(&met).cloned().collect()
    }

    #[test]
    fn each_value_meets_each_value_of_each_other_column() {
        assert_eq!(missing(&usual()), Vec::<Pair>::new());
        assert_eq!(missing(&all()), Vec::<Pair>::new());
        // The check finds what is not there.
        let without = |row: &Row| row.proof != Proof::Rsa || row.cipher != Cipher::ChaCha20;
        let fewer: Vec<Row> = usual().into_iter().filter(without).collect();
        let gone = [
            (1, format!("{:?}", Proof::Rsa)),
            (5, format!("{:?}", Cipher::ChaCha20)),
        ];
        assert!(missing(&fewer).contains(&gone));
    }

    #[test]
    fn the_usual_rows_are_few_and_all_of_them_are_the_product() {
        let figures = (usual().len(), all().len());
        assert_eq!(figures, (8 * 4, 8 * 4 * 2 * 2));
    }

    #[test]
    fn names_tell_the_rows_apart() {
        let rows = all();
        let names: HashSet<String> = rows.iter().map(Row::name).collect();
        assert_eq!(names.len(), rows.len());
        assert!(
            names
                .iter()
                .all(|name| name.starts_with(super::super::NAME))
        );
        let row = Row {
            begins: Side::Us,
            proof: Proof::Psk,
            rekey: Rekey::Child(Side::Them),
            nat: true,
            inner: Inner::V4,
            cipher: Cipher::Aes256Gcm,
            deletes: Side::Us,
        };
        assert_eq!(
            row.name(),
            "interop_psk_evergate_begins_ipv4_aes256gcm_nat_strongswan_rekeys_child_evergate_deletes"
        );
    }
}
