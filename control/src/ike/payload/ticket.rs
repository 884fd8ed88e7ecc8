//! What TICKET_LT_OPAQUE carries (RFC 5723 section 7.2).

use super::Malformed;
use super::notify::{Notify, kind};
use super::reader::Reader;

/// A ticket with its lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Seconds from now on.
    pub lifetime: u32,
    /// Nobody but the responder can read it.
    pub ticket: Vec<u8>,
}

impl Issued {
    /// Reads the notification.
    ///
    /// # Errors
    /// It ends before there is a ticket.
    pub fn parse(notify: &Notify) -> Result<Issued, Malformed> {
        let mut r = Reader::new(&notify.data);
        let lifetime = r.u32("ticket lifetime")?;
        let ticket = r.rest().to_vec();
        match ticket.is_empty() {
            true => Err(Malformed::Truncated {
                what: "ticket",
                needed: 1,
                left: 0,
            }),
            false => Ok(Issued { lifetime, ticket }),
        }
    }

    /// Makes the notification.
    pub fn notify(&self) -> Notify {
        let data = [&self.lifetime.to_be_bytes()[..], &self.ticket].concat();
        Notify::new(kind::TICKET_LT_OPAQUE, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let issued = Issued {
            lifetime: 0x0102_0304,
            ticket: vec![9; 300],
        };
        let notify = issued.notify();
        assert_eq!(notify.data[..5], [1, 2, 3, 4, 9]);
        assert_eq!(Issued::parse(&notify), Ok(issued));
        for data in [&[][..], &[0, 0, 0], &[0, 0, 0, 1]] {
            let notify = Notify::new(kind::TICKET_LT_OPAQUE, data);
            assert!(Issued::parse(&notify).is_err());
        }
    }
}
