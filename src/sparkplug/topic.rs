//! Topics of Sparkplug B: `spBv1.0/{group}/{message}/{node}` and, for devices, `/{device}`.

/// First level of every topic.
pub const NAMESPACE: &str = "spBv1.0";

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Birth of a node.
    NodeBirth,
    /// Birth of a device.
    DeviceBirth,
    /// Values of a node.
    NodeData,
    /// Values of a device.
    DeviceData,
    /// Death of a node and of all its devices.
    NodeDeath,
    /// Death of a device.
    DeviceDeath,
    /// A command to a node.
    NodeCommand,
    /// A command to a device.
    DeviceCommand,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NodeBirth,
        Self::DeviceBirth,
        Self::NodeData,
        Self::DeviceData,
        Self::NodeDeath,
        Self::DeviceDeath,
        Self::NodeCommand,
        Self::DeviceCommand,
    ];

    /// The word in the topic.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NodeBirth => "NBIRTH",
            Self::DeviceBirth => "DBIRTH",
            Self::NodeData => "NDATA",
            Self::DeviceData => "DDATA",
            Self::NodeDeath => "NDEATH",
            Self::DeviceDeath => "DDEATH",
            Self::NodeCommand => "NCMD",
            Self::DeviceCommand => "DCMD",
        }
    }

    /// Whether the topic names a device.
    #[must_use]
    pub const fn of_device(self) -> bool {
        match self {
            Self::DeviceBirth | Self::DeviceData | Self::DeviceDeath | Self::DeviceCommand => true,
            Self::NodeBirth | Self::NodeData | Self::NodeDeath | Self::NodeCommand => false,
        }
    }
}

/// A topic, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic<'a> {
    /// Group of nodes.
    pub group: &'a str,
    /// What the message is.
    pub kind: Kind,
    /// The edge node; group and node together name it.
    pub node: &'a str,
    /// The device behind the node; there exactly when the kind is of a device.
    pub device: Option<&'a str>,
}

impl<'a> Topic<'a> {
    /// Takes a topic apart; `None` when it is none of Sparkplug's, STATE included.
    #[must_use]
    pub fn parse(topic: &'a str) -> Option<Self> {
        let mut levels = topic.split('/');
        if levels.next()? != NAMESPACE {
            return None;
        }
        let group = levels.next()?;
        let word = levels.next()?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == word)?;
        let node = levels.next()?;
        let device = levels.next();
        let whole = levels.next().is_none() && !group.is_empty() && !node.is_empty();
        let right = whole && device.is_some() == kind.of_device() && device != Some("");
        right.then_some(Self { group, kind, node, device })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_topics_are_taken() {
        let topic = Topic::parse("spBv1.0/g/DDATA/n/d").unwrap();
        let expected = Topic { group: "g", kind: Kind::DeviceData, node: "n", device: Some("d") };
        assert_eq!(topic, expected);
        assert!(Topic::parse("spBv1.0/g/NBIRTH/n").is_some());
        for wrong in [
            "spBv1.0/g/NBIRTH/n/d",
            "spBv1.0/g/DDATA/n",
            "spBv1.0/g/DDATA/n/",
            "spBv1.0/g/DDATA/n/d/e",
            "spBv1.0/STATE/host",
            "spAv1.0/g/NDATA/n",
            "spBv1.0//NDATA/n",
            "spBv1.0/g/nbirth/n",
        ] {
            assert_eq!(Topic::parse(wrong), None, "{wrong}");
        }
    }
}
