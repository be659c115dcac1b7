//! What rtnetlink does not say of links: drivers and checksum offload (ethtool's ioctl, `linux/ethtool.h`).

use std::ffi::CStr;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

const GET_DRIVER: u32 = 0x3;
const GET_TX_CHECKSUMS: u32 = 0x16;
const SET_TX_CHECKSUMS: u32 = 0x17;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// A socket to ask by, in the network namespace in which it was opened.
pub(crate) struct Ethtool {
    socket: UnixDatagram,
}

impl Ethtool {
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()? })
    }

    /// The driver of a link; none where there is no such link, or it has none.
    pub(crate) fn driver(&self, link: &str) -> Option<String> {
        let mut asked = Driver { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
        self.request(link, &mut asked).ok()?;
        let name = CStr::from_bytes_until_nul(&asked.driver).ok()?.to_str().ok()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Whether a link leaves checksums to who comes after it.
    pub(crate) fn checksum_offload(&self, link: &str) -> Option<bool> {
        let mut asked = Value { command: GET_TX_CHECKSUMS, data: 0 };
        self.request(link, &mut asked).ok()?;
        Some(asked.data != 0)
    }

    /// Without it the kernel finishes checksums before a packet is given to the link. What needs it, as segmentation by the interface does,
    /// goes and comes with it.
    pub(crate) fn set_checksum_offload(&self, link: &str, on: bool) -> io::Result<()> {
        self.request(link, &mut Value { command: SET_TX_CHECKSUMS, data: u32::from(on) })
    }

    #[allow(unsafe_code)]
    fn request<T>(&self, link: &str, asked: &mut T) -> io::Result<()> {
        // SAFETY: all zeros are a valid ifreq, which consists of numbers and pointers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if link.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = std::ptr::from_mut(asked).cast();
        // SAFETY: the name ends with a zero, and `T` is the structure of the command that it begins with; both live through the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::netns::Netns;
    use super::*;

    #[test]
    #[ignore = "needs root: make test"]
    fn a_link_says_its_driver_and_its_offload_can_be_turned_off() {
        let netns = Netns::new("ethtool");
        netns.ip("link add twill-vxlan type vxlan external nolearning dstport 4789");
        netns.enter(|| {
            let ethtool = Ethtool::open().unwrap();
            assert_eq!(ethtool.driver("twill-vxlan").as_deref(), Some("vxlan"));
            assert_eq!(ethtool.driver("twill-absent"), None);
            assert_eq!(ethtool.checksum_offload("twill-vxlan"), Some(true));
            for on in [false, true] {
                ethtool.set_checksum_offload("twill-vxlan", on).unwrap();
                assert_eq!(ethtool.checksum_offload("twill-vxlan"), Some(on));
            }
            assert_eq!(ethtool.checksum_offload("a-name-that-is-longer-than-any"), None);
        });
    }
}
