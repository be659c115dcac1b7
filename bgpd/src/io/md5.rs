//! TCP MD5 signatures (RFC 2385, tcp(7) TCP_MD5SIG): there is no safe wrapper for this option.

use ipnet::IpNet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Octets that a key may have (`linux/tcp.h`, TCP_MD5SIG_MAXKEYLEN).
const KEY: usize = 80;

/// `linux/tcp.h`: TCP_MD5SIG with flags, and the one that says that the prefix length counts.
const TCP_MD5SIG_EXT: libc::c_int = 32;
/// See [`TCP_MD5SIG_EXT`].
const FLAG_PREFIX: u8 = 1;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct Signature {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; KEY],
}

/// Sets the key for segments to and from the addresses in `peers`, or removes it; of several the kernel takes that of the longest
/// prefix. On a listening socket it must be there before the SYN. A link-local address is the same on all interfaces: the kernel tells apart
/// VRFs only.
///
/// # Errors
/// Those of setsockopt(2); removing a key that is not there is none.
#[allow(unsafe_code)]
pub(super) fn set(socket: BorrowedFd<'_>, peers: IpNet, key: Option<&str>) -> io::Result<()> {
    let key = key.unwrap_or_default().as_bytes();
    if key.len() > KEY {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the password has more than 80 octets"));
    }
    let peers = peers.trunc();
    // A key for one address works on kernels that know no prefixes (before 4.13), too.
    let single = peers.prefix_len() == peers.max_prefix_len();
    let address = socket2::SockAddr::from(SocketAddr::new(peers.addr(), 0));
    let mut signature = Signature {
        // SAFETY: all zeros is a valid sockaddr_storage.
        address: unsafe { std::mem::zeroed() },
        flags: if single { 0 } else { FLAG_PREFIX },
        prefix_length: if single { 0 } else { peers.prefix_len() },
        key_length: u16::try_from(key.len()).unwrap_or(0),
        interface: 0,
        key: [0; KEY],
    };
    signature.key[..key.len()].copy_from_slice(key);
    // SAFETY: both are sockaddr_storage, and `address` holds at least `len` valid octets of it.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            (&raw mut signature.address).cast::<u8>(),
            address.len() as usize,
        );
    }
    // SAFETY: the pointer and the length describe `signature`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            if single { libc::TCP_MD5SIG } else { TCP_MD5SIG_EXT },
            (&raw const signature).cast(),
            size_of::<Signature>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if key.is_empty() && error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            error => Err(error),
        },
    }
}
