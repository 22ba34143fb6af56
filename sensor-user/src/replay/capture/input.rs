//! The bytes of a capture: decompression, by the first bytes.

use super::fault::{CaptureFault, OtherFormat};
use flate2::bufread::GzDecoder;
use std::io::{self, BufRead, BufReader, Cursor, Read};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Formats that are not read, by their first bytes.
const OTHERS: [(&[u8], &str, &str); 15] = [
    (
        &[0xfd, b'7', b'z', b'X', b'Z', 0],
        "compressed with xz",
        "decompress it: `xz -dc FILE | teiten replay -`",
    ),
    (b"BZh", "compressed with bzip2", "decompress it: `bzip2 -dc FILE | teiten replay -`"),
    (&[0x04, 0x22, 0x4d, 0x18], "compressed with lz4", "decompress it: `lz4 -dc FILE | teiten replay -`"),
    (&[0x02, 0x21, 0x4c, 0x18], "compressed with lz4", "decompress it: `lz4 -dc FILE | teiten replay -`"),
    (b"LZIP", "compressed with lzip", "decompress it: `lzip -dc FILE | teiten replay -`"),
    (&[0x5d, 0, 0], "compressed with lzma", "decompress it: `xz -dc FILE | teiten replay -`"),
    (&[0x1f, 0x9d], "compressed with compress", "decompress it: `gzip -dc FILE | teiten replay -`"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it: `unzip -p FILE | teiten replay -`"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it: `7z x -so FILE | teiten replay -`"),
    (b"snoop\0\0\0", "a snoop capture", CONVERT),
    (b"RTSS", "a capture of Network Monitor", CONVERT),
    (b"GMBU", "a capture of Network Monitor", CONVERT),
    (b"XCP\0", "a capture of NetXray or Sniffer", CONVERT),
    (b"TRSNIFF data", "a capture of Sniffer", CONVERT),
    (b"iptrace ", "a capture of iptrace", CONVERT),
];
const CONVERT: &str = "convert it: `editcap -F pcapng FILE NEW.pcapng`";

/// The format of these first bytes, when it is known.
pub(super) fn other_format(data: &[u8]) -> Option<OtherFormat> {
    let (_, name, way_out) = OTHERS.into_iter().find(|(magic, ..)| data.starts_with(magic))?;
    Some(OtherFormat { name, way_out })
}

/// Undoes the compression that the first bytes tell.
pub(super) fn decompressed<'a>(
    input: impl Read + Send + 'a,
) -> Result<Box<dyn Read + Send + 'a>, CaptureFault> {
    let mut input: Box<dyn Read + Send + 'a> = Box::new(input);
    loop {
        let mut magic = Vec::with_capacity(8);
        input.by_ref().take(8).read_to_end(&mut magic).map_err(CaptureFault::Open)?;
        if let Some(bytes) = skippable(&magic) {
            // A frame for the programs of who compressed it (RFC 8878, 3.1.2).
            io::copy(&mut input.by_ref().take(bytes), &mut io::sink()).map_err(CaptureFault::Open)?;
            continue;
        }
        let is_gzip = magic.starts_with(&GZIP);
        let is_zstd = magic.starts_with(&ZSTD);
        let whole = Cursor::new(magic).chain(input);
        return Ok(if is_gzip {
            Box::new(Gzip { member: Some(GzDecoder::new(BufReader::with_capacity(1 << 16, whole))) })
        } else if is_zstd {
            Box::new(zstd::stream::read::Decoder::new(whole).map_err(CaptureFault::Open)?)
        } else {
            Box::new(whole)
        });
    }
}

/// The bytes of a skippable frame after these, its header.
fn skippable(header: &[u8]) -> Option<u64> {
    let (magic, bytes) = header.split_first_chunk::<4>()?;
    let bytes = u32::from_le_bytes(bytes.try_into().ok()?);
    (u32::from_le_bytes(*magic) & 0xffff_fff0 == 0x184d_2a50).then_some(bytes.into())
}

/// Members of gzip, one after another, and zeros after them, to which some media are filled up.
struct Gzip<R> {
    /// `None` after the last one.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(member) = &mut self.member else { return Ok(0) };
            let bytes = member.read(buffer)?;
            if bytes > 0 || buffer.is_empty() {
                return Ok(bytes);
            }
            let Some(member) = self.member.take() else { return Ok(0) };
            let mut rest = member.into_inner();
            match first_non_zero(&mut rest)? {
                None => return Ok(0),
                Some(byte) if byte == GZIP[0] => self.member = Some(GzDecoder::new(rest)),
                Some(_) => {
                    let what = "what follows the last gzip member is neither another one nor zeros";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
    }
}

/// Skips zeros; the byte that follows, if one does.
fn first_non_zero(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let data = input.fill_buf()?;
        if data.is_empty() {
            return Ok(None);
        }
        let zeros = data.iter().take_while(|byte| **byte == 0).count();
        let next = data.get(zeros).copied();
        input.consume(zeros);
        if next.is_some() {
            return Ok(next);
        }
    }
}
