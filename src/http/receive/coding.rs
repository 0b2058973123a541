//! Content codings of bodies: gzip, deflate, br and zstd, also on top of each other.
//!
//! A body is decoded twice unless it is small: first only to count its bytes, so that room for them can be
//! waited for with nothing in hand, and one that becomes too large never is in memory.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Bytes;
use axum::http::{HeaderMap, header};
use brotli_decompressor::Decompressor;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::super::error::ApiError;

/// Most codings on top of each other.
const MOST: usize = 3;
/// Bytes that a decoder reads at a time of what another one gives.
const BUFFER: usize = 8 * 1024;
/// The largest window of zstd: what RFC 9659 has for HTTP, or the body itself where it is larger.
const ZSTD_WINDOW: u64 = 8 << 20;

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// A body's codings in the order in which they were applied; none if it is plain.
    pub(super) fn of(headers: &HeaderMap) -> Result<Vec<Self>, ApiError> {
        let mut codings = Vec::new();
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let names = value.to_str().map_err(|_| ApiError::UnknownCoding)?;
            for name in names.split(',') {
                codings.extend(Self::named(name)?);
            }
        }
        if codings.len() > MOST {
            return Err(ApiError::UnknownCoding);
        }
        Ok(codings)
    }

    /// The coding of a name; none if it stands for a plain body.
    pub(in crate::http) fn named(name: &str) -> Result<Option<Self>, ApiError> {
        Ok(Some(match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => return Ok(None),
            "gzip" | "x-gzip" => Self::Gzip,
            "deflate" => Self::Deflate,
            "br" => Self::Brotli,
            "zstd" => Self::Zstd,
            _ => return Err(ApiError::UnknownCoding),
        }))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }

    fn decoder(self, encoded: Stage, limit: usize) -> io::Result<Stage> {
        let mut encoded = BufReader::with_capacity(BUFFER, encoded);
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(encoded)),
            Self::Deflate => {
                // It means zlib's format, but some send the bare stream.
                const ZLIB: u8 = 8;
                let first = encoded.fill_buf()?.first();
                if first.is_some_and(|byte| byte & 0xf == ZLIB) {
                    Box::new(ZlibDecoder::new(encoded))
                } else {
                    Box::new(DeflateDecoder::new(encoded))
                }
            }
            Self::Brotli => Box::new(Decompressor::new(encoded, BUFFER)),
            Self::Zstd => Box::new(Zstd::new(encoded, ZSTD_WINDOW.max(limit as u64))),
        })
    }
}

type Stage = Box<dyn Read + Send>;

/// Decodes a body of which each coding may give at most `limit` bytes: the first `keep` bytes, and how many
/// there are in all.
pub(super) fn decode(
    encoded: Bytes,
    codings: &[Coding],
    limit: usize,
    keep: usize,
) -> Result<(Vec<u8>, usize), ApiError> {
    let is_too_large = Arc::new(AtomicBool::new(false));
    let bounded = |stage| Bounded {
        stage,
        left: limit,
        is_too_large: Arc::clone(&is_too_large),
    };
    let mut kept = Vec::with_capacity(keep);
    let encoded: Stage = Box::new(io::Cursor::new(encoded));
    let stage = codings.iter().rev().try_fold(encoded, |encoded, coding| {
        let stage: Stage = Box::new(bounded(coding.decoder(encoded, limit)?));
        Ok(stage)
    });
    let read = stage.and_then(|mut stage| {
        stage.by_ref().take(keep as u64).read_to_end(&mut kept)?;
        io::copy(&mut stage, &mut io::sink())
    });
    match read {
        Ok(rest) => {
            let all = kept.len() + usize::try_from(rest).unwrap_or(usize::MAX);
            Ok((kept, all))
        }
        Err(_) if is_too_large.load(Ordering::Relaxed) => Err(ApiError::BodyTooLarge(limit)),
        Err(_) => {
            let names: Vec<&str> = codings.iter().map(|coding| coding.name()).collect();
            Err(ApiError::CodingBroken(names.join(", ")))
        }
    }
}

/// Fails where a stage gives more than it may.
struct Bounded {
    stage: Stage,
    left: usize,
    is_too_large: Arc<AtomicBool>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stage.read(buffer)?;
        let Some(left) = self.left.checked_sub(read) else {
            self.is_too_large.store(true, Ordering::Relaxed);
            return Err(io::Error::other("too large"));
        };
        self.left = left;
        Ok(read)
    }
}

/// zstd's frames, one after the other.
struct Zstd<R> {
    source: R,
    frame: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R, window: u64) -> Self {
        let mut frame = FrameDecoder::new();
        frame.set_max_window_size(window);
        Self {
            source,
            frame,
            is_in_frame: false,
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.frame.reset(&mut self.source) {
            Ok(()) => self.is_in_frame = true,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let skipped = self.source.by_ref().take(length.into());
                io::copy(&mut { skipped }, &mut io::sink())?;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame {
                if self.source.fill_buf()?.is_empty() {
                    return Ok(0);
                }
                self.begin()?;
                continue;
            }
            let read = self.frame.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            if self.frame.is_finished() {
                let sum = self.frame.get_checksum_from_data();
                if sum.is_some() && sum != self.frame.get_calculated_checksum() {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                self.is_in_frame = false;
            } else {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                let decoded = self.frame.decode_blocks(&mut self.source, one);
                decoded.map_err(io::Error::other)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use std::io::Write;

    /// `rivers carve valleys`, by the reference implementations' command lines.
    const BROTLI: &[u8] = b"\x8b\x09\x80rivers carve valleys\x03";
    const ZSTD: &[u8] = b"(\xb5/\xfd$\x14\xa1\x00\x00rivers carve valleyse\x82a\x90";
    const TEXT: &[u8] = b"rivers carve valleys";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn bare_deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(encoded: &[u8], codings: &str, limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, codings.parse().unwrap());
        let codings = Coding::of(&headers)?;
        let encoded = Bytes::copy_from_slice(encoded);
        let (kept, all) = decode(encoded.clone(), &codings, limit, 7)?;
        assert_eq!(kept.len(), all.min(7));
        let (decoded, _) = decode(encoded, &codings, limit, all)?;
        assert!(decoded.starts_with(&kept) && decoded.len() == all);
        Ok(decoded)
    }

    #[test]
    fn every_coding_is_decoded_alone_and_on_top_of_others() {
        let twice = [gzip(b"rivers "), gzip(b"carve valleys")].concat();
        let skippable = [b"\x50\x2a\x4d\x18\x03\0\0\0abc", ZSTD].concat();
        for (encoded, codings) in [
            (gzip(TEXT), "gzip"),
            (gzip(TEXT), "X-Gzip, identity"),
            (twice, "gzip"),
            (deflate(TEXT), "deflate"),
            (bare_deflate(TEXT), "deflate"),
            (BROTLI.to_vec(), "br"),
            (ZSTD.to_vec(), "zstd"),
            (skippable, "zstd"),
            (gzip(BROTLI), "br, gzip"),
            (gzip(&deflate(ZSTD)), "zstd,deflate,gzip"),
        ] {
            assert_eq!(decoded(&encoded, codings, 100).unwrap(), TEXT, "{codings}");
            assert!(matches!(
                decoded(&encoded, codings, 19),
                Err(ApiError::BodyTooLarge(19))
            ));
        }
        for codings in ["compress", "gzip, lzma", "gzip, gzip, gzip, gzip", "*"] {
            assert!(
                matches!(decoded(b"", codings, 20), Err(ApiError::UnknownCoding)),
                "{codings}"
            );
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_or_changed_is_found_out() {
        for (whole, codings) in [
            (gzip(TEXT), "gzip"),
            (deflate(TEXT), "deflate"),
            (bare_deflate(TEXT), "deflate"),
            (BROTLI.to_vec(), "br"),
            (ZSTD.to_vec(), "zstd"),
        ] {
            for end in 1..whole.len() {
                let cut = decoded(&whole[..end], codings, 100);
                assert!(
                    matches!(cut, Err(ApiError::CodingBroken(_))),
                    "{codings} {end}: {cut:?}"
                );
            }
            let mut changed = whole.clone();
            changed[whole.len() / 2] ^= 0x55;
            assert!(decoded(&changed, codings, 100).map_or(true, |text| text != TEXT));
        }
        assert!(decoded(TEXT, "gzip", 100).is_err() && decoded(TEXT, "zstd", 100).is_err());
    }

    #[test]
    fn what_grows_too_large_between_two_codings_is_found_out_too() {
        // Members without content: a lot of them decode to nothing.
        let nothing = gzip(b"").repeat(10_000);
        let small = gzip(&nothing);
        assert!(small.len() < 2_000);
        assert!(matches!(
            decoded(&small, "gzip, gzip", 10_000),
            Err(ApiError::BodyTooLarge(_))
        ));
        assert_eq!(decoded(&small, "gzip, gzip", 1_000_000).unwrap(), b"");
    }
}
