//! AES-GCM by Intel's multi-buffer library (`libipsec-mb`), one packet at a time.
//!
//! The functions come from the library's manager, by way of `ipsec_mb.c`, which is compiled against
//! the library's header and asserts the sizes that stand here.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use super::{NONCE_LEN, Refused, TAG_LEN};

/// `struct gcm_key_data`.
#[repr(C, align(64))]
struct Expanded([u8; 1024]);

/// `struct gcm_context_data`: the state of one packet, set up by each call anew.
#[repr(C, align(16))]
struct Scratch([MaybeUninit<u8>; 96]);

type Expand = unsafe extern "C" fn(key: *const u8, expanded: *mut Expanded);

type Crypt = unsafe extern "C" fn(
    key: *const Expanded,
    scratch: *mut Scratch,
    to: *mut u8,
    from: *const u8,
    len: u64,
    nonce: *const u8,
    aad: *const u8,
    aad_len: u64,
    tag: *mut u8,
    tag_len: u64,
);

/// The library's functions for this processor, for keys of 16 bytes and of 32.
#[repr(C)]
struct Functions {
    expand: [Expand; 2],
    seal: [Crypt; 2],
    open: [Crypt; 2],
}

unsafe extern "C" {
    /// Fills in all functions and returns 0, or returns something else.
    fn evergate_ipsec_mb(functions: *mut Functions) -> c_int;
}

/// The longest data of one packet (NIST SP 800-38D section 5.2.1.1).
const LONGEST: u64 = (1 << 36) - 32;

fn functions() -> &'static Functions {
    static FUNCTIONS: OnceLock<Functions> = OnceLock::new();
    FUNCTIONS.get_or_init(|| {
        let mut functions = MaybeUninit::uninit();
        // SAFETY: room for the structure, laid out in the same way on both sides.
        let error = unsafe { evergate_ipsec_mb(functions.as_mut_ptr()) };
        assert_eq!(error, 0, "libipsec-mb does not start, or has no memory");
        // SAFETY: without an error all of it was written, and the library's pointers are never null.
        unsafe { functions.assume_init() }
    })
}

/// An expanded key. Wiped when dropped.
pub(super) struct GcmKey {
    expanded: Expanded,
    seal: Crypt,
    open: Crypt,
}

impl GcmKey {
    /// Expands a key of 16 or 32 bytes; `None` for another length.
    pub(super) fn new(key: &[u8]) -> Option<Box<Self>> {
        let which = match key.len() {
            16 => 0,
            32 => 1,
            _ => return None,
        };
        let functions = functions();
        let mut new = Box::new(Self {
            expanded: Expanded([0; 1024]),
            seal: functions.seal[which],
            open: functions.open[which],
        });
        // SAFETY: the function for keys of this length reads just that many bytes, and writes one
        // expanded key, aligned as the library wants it.
        unsafe { functions.expand[which](key.as_ptr(), &raw mut new.expanded) };
        Some(new)
    }

    /// Encrypts in place and returns the tag.
    pub(super) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> Result<[u8; TAG_LEN], Refused> {
        if data.len() as u64 > LONGEST {
            return Err(Refused::TooBig);
        }
        Ok(self.crypt(self.seal, nonce, aad, data))
    }

    /// Decrypts in place. If the tag is wrong, what was decrypted is wiped.
    pub(super) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Refused> {
        if data.len() as u64 > LONGEST {
            return Err(Refused::BadIcv);
        }
        let expected = self.crypt(self.open, nonce, aad, data);
        if bool::from(expected.ct_eq(tag)) {
            return Ok(());
        }
        data.fill(0);
        Err(Refused::BadIcv)
    }

    fn crypt(
        &self,
        crypt: Crypt,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let mut scratch = Scratch([MaybeUninit::uninit(); 96]);
        let mut tag = [0; TAG_LEN];
        let (at, len) = (data.as_mut_ptr(), data.len() as u64);
        // SAFETY: every pointer is valid for the length that goes with it; nonce and tag have the
        // lengths that the library takes for granted or is told. It works in place when both data
        // pointers are the same, and keeps none of them.
        unsafe {
            crypt(
                &raw const self.expanded,
                &raw mut scratch,
                at,
                at,
                len,
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len() as u64,
                tag.as_mut_ptr(),
                TAG_LEN as u64,
            );
        }
        tag
    }
}

impl Drop for GcmKey {
    fn drop(&mut self) {
        self.expanded.0.zeroize();
    }
}
