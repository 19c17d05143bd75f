//! Whose a data directory is and how it began: written last when the directory is made, looked at in every start.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::disk::Disk;
use crate::store_id::StoreId;
use crate::traits::StorageError;

const NAME: &str = "IDENTITY";
const TEMPORARY: &str = "IDENTITY.tmp";
const MAGIC: [u8; 8] = *b"RRIDENTI";
const VERSION_1: u32 = 1;
const VERSION: u32 = 2;

/// More than any directory has to remember; what is larger is no identity.
const MAX_BYTES: usize = 1 << 20;

/// How a data directory came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreationKind {
    /// It started blank as one of the first members, with an initial configuration.
    Bootstrap,
    /// It started blank as that of a member without memory, which waits for a leader.
    Rejoin,
    /// Its groups were brought from a store of another kind.
    Import,
}

impl CreationKind {
    fn byte(self) -> u8 {
        match self {
            CreationKind::Bootstrap => 1,
            CreationKind::Rejoin => 2,
            CreationKind::Import => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<CreationKind> {
        match byte {
            1 => Some(CreationKind::Bootstrap),
            2 => Some(CreationKind::Rejoin),
            3 => Some(CreationKind::Import),
            _ => None,
        }
    }
}

/// What a data directory remembers of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The server as its peers name it, `ip:port`; at most 65,535 bytes, as every text here.
    pub server_id: String,
    /// Name of the cluster it belongs to.
    pub cluster: String,
    /// How the directory was created.
    pub creation: CreationKind,
    /// Whether a program that wrote format version 1 created it.
    pub taken_over: bool,
    /// The store behind it; `None` in a directory of version 1, which does not remember it.
    pub store: Option<StoreId>,
    /// When it was made, in milliseconds since 1970; 0 when that is not known. For people only.
    pub created_ms: u64,
    /// Id of the cluster, which its messages carry; empty while it is not known.
    pub cluster_id: String,
    /// Streams beside this one: their numbers and directories.
    pub streams: Vec<(u16, String)>,
    /// What the program on top must not change, by name.
    pub facts: BTreeMap<String, String>,
}

impl Identity {
    /// The identity of a directory that is made now, around a store that is there already.
    pub fn new(server_id: &str, cluster: &str, creation: CreationKind, store: StoreId) -> Identity {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Identity {
            server_id: server_id.to_owned(),
            cluster: cluster.to_owned(),
            creation,
            taken_over: false,
            store: Some(store),
            created_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            cluster_id: String::new(),
            streams: Vec::new(),
            facts: BTreeMap::new(),
        }
    }

    /// What the directory remembers; `None` when there is no identity in it.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] when the file cannot be understood, [`StorageError::Refused`] when a newer program wrote it,
    /// [`StorageError::Io`].
    pub fn read(disk: &dyn Disk) -> Result<Option<Identity>, StorageError> {
        if !disk.list()?.iter().any(|name| name == NAME) {
            return Ok(None);
        }
        let file = disk.open(NAME)?;
        let mut bytes = vec![0; file.len()?.min(MAX_BYTES as u64) as usize];
        file.read_exact_at(0, &mut bytes)?;
        let path = disk.path(NAME);
        decode(&bytes).map(Some).map_err(|wrong| match wrong {
            Wrong::Damaged(what) => StorageError::Damaged { path, offset: 0, what },
            Wrong::Newer(what) => StorageError::Refused(format!(
                "{path} has {what}, which this version does not know; use the program version that wrote it"
            )),
        })
    }

    /// Makes a directory without an identity remember this one, durably; after a crash it has none or all of it. The store must be there and durable, and open: its lock is what keeps another
    /// server from doing the same.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when the directory remembers one already or a text is too long, [`StorageError::Io`].
    pub fn create(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        if let Some(owner) = Identity::read(disk)? {
            return Err(StorageError::Refused(format!(
                "{} already belongs to server {} of cluster {}; name an empty data directory",
                disk.path(NAME),
                owner.server_id,
                owner.cluster
            )));
        }
        self.write(disk)
    }

    /// Puts this identity in the place of the one that is there, durably; after a crash the directory has one or the other, whole. Only the owner of the open store may.
    ///
    /// # Errors
    /// [`StorageError::Refused`] when there is none, it belongs to another server or store, or a text is too long, [`StorageError::Io`].
    pub fn replace(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let Some(found) = Identity::read(disk)? else {
            return Err(StorageError::Refused(format!("{} is gone and cannot be replaced", disk.path(NAME))));
        };
        let same_store = found.store.is_none() || found.store == self.store;
        if found.server_id != self.server_id || !same_store || found.creation != self.creation {
            return Err(StorageError::Refused(format!(
                "{} is not the one that was read before; somebody else uses the directory",
                disk.path(NAME)
            )));
        }
        self.write(disk)
    }

    fn write(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let bytes = encode(self).map_err(StorageError::Refused)?;
        if disk.list()?.iter().any(|name| name == TEMPORARY) {
            disk.remove(TEMPORARY)?;
        }
        let file = disk.create(TEMPORARY, 0)?;
        file.write_at(0, &bytes)?;
        file.sync_data()?;
        disk.rename(TEMPORARY, NAME)?;
        disk.sync_dir()
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), String> {
    let len = u16::try_from(text.len())
        .map_err(|_| format!("a text of an identity has at most 65535 bytes, one has {}", text.len()))?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn encode(identity: &Identity) -> Result<Vec<u8>, String> {
    let count = |len: usize, what: &str| {
        u16::try_from(len).map_err(|_| format!("an identity has at most 65535 {what}, this one {len}"))
    };
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[identity.creation.byte(), u8::from(identity.taken_over), 0, 0]);
    out.extend_from_slice(&identity.store.unwrap_or_default().0);
    out.extend_from_slice(&identity.created_ms.to_le_bytes());
    for text in [&identity.server_id, &identity.cluster, &identity.cluster_id] {
        put_text(&mut out, text)?;
    }
    out.extend_from_slice(&count(identity.streams.len(), "streams")?.to_le_bytes());
    for (number, directory) in &identity.streams {
        out.extend_from_slice(&number.to_le_bytes());
        put_text(&mut out, directory)?;
    }
    out.extend_from_slice(&count(identity.facts.len(), "facts")?.to_le_bytes());
    for (name, value) in &identity.facts {
        put_text(&mut out, name)?;
        put_text(&mut out, value)?;
    }
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    if out.len() > MAX_BYTES {
        return Err(format!("an identity has at most {MAX_BYTES} bytes, this one {}", out.len()));
    }
    Ok(out)
}

/// Why bytes are no identity.
#[derive(Debug)]
enum Wrong {
    Damaged(String),
    /// Right by its checksum, and beyond what this version knows.
    Newer(String),
}

fn damaged(what: &str) -> Wrong {
    Wrong::Damaged(what.to_owned())
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Wrong> {
        let (field, rest) = self.0.split_at_checked(len).ok_or_else(|| damaged("a field ends early"))?;
        self.0 = rest;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, Wrong> {
        self.array().map(u16::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, Wrong> {
        let len = self.u16()?;
        let bytes = self.bytes(usize::from(len))?;
        String::from_utf8(bytes.to_vec()).map_err(|error| Wrong::Damaged(error.to_string()))
    }
}

fn decode(bytes: &[u8]) -> Result<Identity, Wrong> {
    let (body, crc) =
        bytes.split_at_checked(bytes.len().wrapping_sub(4)).ok_or_else(|| damaged("the file ends early"))?;
    let mut fields = Fields(body.strip_prefix(&MAGIC).ok_or_else(|| damaged("not an identity file"))?);
    if crc32c::crc32c(body).to_le_bytes() != crc {
        return Err(damaged("checksum does not match"));
    }
    let version = fields.array().map(u32::from_le_bytes)?;
    if !(VERSION_1..=VERSION).contains(&version) {
        return Err(Wrong::Newer(format!("format version {version}")));
    }
    let [kind, taken_over, zeros @ ..] = fields.array::<4>()?;
    let creation =
        CreationKind::from_byte(kind).ok_or_else(|| Wrong::Newer(format!("kind of creation {kind}")))?;
    if zeros != [0; 2] || taken_over > u8::from(version == VERSION) {
        return Err(Wrong::Newer("a field that should be 0 and is not".to_owned()));
    }
    if version == VERSION_1 {
        let (server_id, cluster) = (fields.text()?, fields.text()?);
        return Ok(Identity {
            server_id,
            cluster,
            creation,
            taken_over: false,
            store: None,
            created_ms: 0,
            cluster_id: String::new(),
            streams: Vec::new(),
            facts: BTreeMap::new(),
        });
    }
    let (store, created_ms) = (StoreId(fields.array()?), fields.array().map(u64::from_le_bytes)?);
    let (server_id, cluster, cluster_id) = (fields.text()?, fields.text()?, fields.text()?);
    let count = fields.u16()?;
    let streams = (0..count).map(|_| Ok((fields.u16()?, fields.text()?))).collect::<Result<_, Wrong>>()?;
    let mut facts = BTreeMap::new();
    for _ in 0..fields.u16()? {
        let (name, value) = (fields.text()?, fields.text()?);
        if facts.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(damaged("facts do not ascend"));
        }
        facts.insert(name, value);
    }
    if !fields.0.is_empty() {
        return Err(Wrong::Newer("more behind its end".to_owned()));
    }
    Ok(Identity {
        server_id,
        cluster,
        creation,
        taken_over: taken_over == 1,
        store: Some(store),
        created_ms,
        cluster_id,
        streams,
        facts,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::MemoryDisk;

    fn identity() -> Identity {
        let mut identity = Identity::new("127.0.0.1:80", "demo", CreationKind::Bootstrap, StoreId([7; 16]));
        identity.cluster_id = "c0ffee".to_owned();
        identity.facts.insert("b".to_owned(), "2".to_owned());
        identity.facts.insert("a".to_owned(), String::new());
        identity
    }

    /// What a program of version 1 wrote.
    fn version_1() -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION_1.to_le_bytes());
        out.extend_from_slice(&[2, 0, 0, 0]);
        put_text(&mut out, "127.0.0.1:80").unwrap();
        put_text(&mut out, "demo").unwrap();
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn put(disk: &MemoryDisk, bytes: &[u8]) {
        let file = disk.create(NAME, 0).unwrap();
        file.write_at(0, bytes).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let mut identity = identity();
        (identity.created_ms, identity.taken_over) = (0x0102, true);
        identity.streams.push((1, "/d".to_owned()));
        let hex: String = encode(&identity).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "52524944454e5449",
            "02000000",
            "01010000",
            "07070707070707070707070707070707",
            "0201000000000000",
            "0c003132372e302e302e313a3830",
            "040064656d6f",
            "0600633066666565",
            "0100",
            "010002002f64",
            "0200",
            "0100610000",
            "01006201",
            "0032",
        );
        assert_eq!(hex[..hex.len() - 8], *expected);
        assert_eq!(decode(&encode(&identity).unwrap()).unwrap(), identity);
    }

    #[test]
    fn a_directory_remembers_whose_it_is() {
        let disk = MemoryDisk::new();
        assert_eq!(Identity::read(&disk).unwrap(), None);
        let made = identity();
        assert!(matches!(made.replace(&disk), Err(StorageError::Refused(_))), "nothing to replace");
        made.create(&disk).unwrap();
        disk.crash(1);
        assert_eq!(Identity::read(&disk).unwrap().as_ref(), Some(&made));
        let again = made.create(&disk).unwrap_err().to_string();
        assert!(again.contains("127.0.0.1:80") && again.contains("demo"), "{again}");

        let learnt = Identity { cluster_id: "another".to_owned(), ..made.clone() };
        learnt.replace(&disk).unwrap();
        disk.crash(2);
        assert_eq!(Identity::read(&disk).unwrap().as_ref(), Some(&learnt));
        for strange in [
            Identity { server_id: "127.0.0.1:81".to_owned(), ..made.clone() },
            Identity { store: Some(StoreId([8; 16])), ..made.clone() },
            Identity { creation: CreationKind::Rejoin, ..made.clone() },
        ] {
            assert!(matches!(strange.replace(&disk), Err(StorageError::Refused(_))), "{strange:?}");
        }
    }

    #[test]
    fn one_of_version_1_is_read_and_replaced() {
        let disk = MemoryDisk::new();
        put(&disk, &version_1());
        let old = Identity::read(&disk).unwrap().unwrap();
        assert_eq!(
            (&*old.server_id, &*old.cluster, old.creation),
            ("127.0.0.1:80", "demo", CreationKind::Rejoin)
        );
        assert_eq!((old.store, &*old.cluster_id), (None, ""));
        let new = Identity { store: Some(StoreId([9; 16])), taken_over: true, ..old };
        new.replace(&disk).unwrap();
        disk.crash(1);
        assert_eq!(Identity::read(&disk).unwrap(), Some(new));
    }

    #[test]
    fn a_crash_at_any_point_leaves_the_old_or_the_new() {
        for replaces in [false, true] {
            for operations in 0..8 {
                for seed in 0..8 {
                    let disk = MemoryDisk::new();
                    let old = replaces.then(identity);
                    if let Some(old) = &old {
                        old.create(&disk).unwrap();
                    }
                    let new = Identity { cluster_id: "learnt".to_owned(), ..identity() };
                    disk.power_off_after(operations);
                    let done = if replaces { new.replace(&disk) } else { new.create(&disk) }.is_ok();
                    disk.crash(seed);
                    let found = Identity::read(&disk).unwrap();
                    let is_new = found.as_ref() == Some(&new);
                    assert!(is_new || !done && found == old, "after {operations} operations: {found:?}");
                    // Whatever is left stands in nobody's way.
                    if found.is_some() { new.replace(&disk) } else { new.create(&disk) }.unwrap();
                }
            }
        }
    }

    #[test]
    fn damage_is_seen() {
        for bytes in [encode(&identity()).unwrap(), version_1()] {
            let disk = MemoryDisk::new();
            put(&disk, &bytes);
            for offset in 0..bytes.len() as u64 {
                disk.flip_bit(NAME, offset, 3);
                assert!(matches!(Identity::read(&disk), Err(StorageError::Damaged { .. })), "byte {offset}");
                disk.flip_bit(NAME, offset, 3);
            }
        }
    }

    #[test]
    fn what_a_newer_program_wrote_is_refused_and_not_called_damaged() {
        // Version, kind of creation, taken over, a byte that is 0; and one more byte at the end.
        for (at, value) in [(8, 3), (12, 4), (13, 2), (14, 1), (usize::MAX, 0)] {
            let mut bytes = encode(&identity()).unwrap();
            bytes.truncate(bytes.len() - 4);
            match bytes.get_mut(at) {
                Some(byte) => *byte = value,
                None => bytes.push(value),
            }
            let crc = crc32c::crc32c(&bytes);
            bytes.extend_from_slice(&crc.to_le_bytes());
            let disk = MemoryDisk::new();
            put(&disk, &bytes);
            assert!(matches!(Identity::read(&disk), Err(StorageError::Refused(_))), "byte {at}");
        }
    }

    #[test]
    fn texts_and_counts_are_bounded() {
        let long = Identity { cluster_id: "x".repeat(65_536), ..identity() };
        assert!(matches!(long.create(&MemoryDisk::new()), Err(StorageError::Refused(_))));
        let facts = (0..20).map(|n| (n.to_string(), "x".repeat(65_535))).collect();
        let large = Identity { facts, ..identity() };
        assert!(matches!(large.create(&MemoryDisk::new()), Err(StorageError::Refused(_))));
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            whole in any::<bool>(),
        ) {
            if whole {
                let mut sealed = [&MAGIC[..], &VERSION.to_le_bytes(), &[1, 0, 0, 0]].concat();
                sealed.append(&mut bytes);
                let crc = crc32c::crc32c(&sealed);
                sealed.extend_from_slice(&crc.to_le_bytes());
                bytes = sealed;
            }
            let _ = decode(&bytes);
        }
    }
}
