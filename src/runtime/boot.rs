//! Which boot of the machine this is.

use uuid::Uuid;

use crate::clock::since_boot;
use crate::domain::time::Now;
use crate::store::BootInfo;

/// The kernel's own identity of the boot, with the time as it is believed now. Where the kernel
/// does not tell (another system, a locked-down container), every start counts as a boot.
#[must_use]
pub fn current(now: Now) -> BootInfo {
    let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let id = told
        .ok()
        .and_then(|text| Uuid::parse_str(text.trim()).ok())
        .unwrap_or_else(|| Uuid::from_u128(fastrand::u128(..)));
    BootInfo { id, utc: now.utc, mono: since_boot(), trusted: now.trusted }
}
