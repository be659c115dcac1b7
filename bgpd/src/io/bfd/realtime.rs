//! A thread that must not be late: everything here is tried, and what is refused is done without.

use tracing::{debug, info};

/// Above what users run, below what the kernel does.
const PRIORITY: libc::c_int = 20;
/// Where the real-time scheduler is refused.
const NICE: libc::c_int = -15;

/// The calling thread goes first, and its memory stays.
#[allow(unsafe_code)]
pub(super) fn ask() {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread, and the pointer is to a value that lives through the call.
    let scheduled = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } == 0;
    // SAFETY: plain numbers; 0 is the calling thread (Linux's nice values are per thread).
    let preferred = scheduled || unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } == 0;
    if !preferred {
        info!("no right to go first (CAP_SYS_NICE): on a machine without a free processor, timers may be late");
    }
    // SAFETY: takes no pointer. What is mapped later is locked when it is touched.
    let locked = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) } == 0;
    debug!(scheduled, preferred, locked, "asked for real-time");
}
