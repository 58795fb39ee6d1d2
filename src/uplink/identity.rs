//! The MQTT client id a gateway uses when none was configured: site, id, and a hash of the machine,
//! so that two gateways flashed from one image do not throw each other off the broker.

use std::path::Path;

use sha2::{Digest, Sha256};

/// Where systemd keeps the machine's identity.
pub const MACHINE_ID: &str = "/etc/machine-id";

/// The default client id: `{site}-{gateway}-{hash}`, the hash being 8 hexadecimal digits of the
/// machine's identity, or absent when it has none. The identity itself is confidential
/// (machine-id(5)) and only its hash, mixed with the names, leaves the machine.
#[must_use]
pub fn default_client_id(site: &str, gateway: &str, machine_id: Option<&str>) -> String {
    let Some(machine) = machine_id.map(str::trim).filter(|text| !text.is_empty()) else {
        return format!("{site}-{gateway}");
    };
    let hash = Sha256::new()
        .chain_update(machine)
        .chain_update([0])
        .chain_update(site)
        .chain_update([0])
        .chain_update(gateway)
        .finalize();
    let short: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{site}-{gateway}-{short}")
}

/// The machine's identity as found at `path`; `None` when it cannot be read.
#[must_use]
pub fn machine_id(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_machines_of_one_image_have_two_names() {
        let one = default_client_id("plant-a", "gw-01", Some("aaaa\n"));
        let two = default_client_id("plant-a", "gw-01", Some("bbbb\n"));
        assert_ne!(one, two);
        assert_eq!(one, default_client_id("plant-a", "gw-01", Some("aaaa")));
        assert!(one.starts_with("plant-a-gw-01-") && !one.contains("aaaa"));
        assert_eq!(default_client_id("a", "b", None), "a-b");
    }
}
