//! From when until when a certificate is valid (RFC 5280 §4.1.2.5), so that whoever has to renew one hears of it in time.
//! TLS itself does not tell a client that its own certificate is about to end: the peer refuses it from one second to the next.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use crate::rfc3339;

/// A certificate that has less than this left ends soon, whatever its lifetime.
const SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// From when until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// `notBefore`.
    pub begins: SystemTime,
    /// `notAfter`.
    pub ends: SystemTime,
}

/// How a certificate stands at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is time.
    Good,
    /// Less than a fifth of its life is left, and less than two weeks.
    EndsSoon,
    /// It has ended, or has not begun.
    Invalid,
}

/// Tells of each certificate once that it ends soon, and once that it is not valid.
#[derive(Debug, Default)]
pub struct Herald(Option<(Validity, Standing)>);

impl Validity {
    /// Of the certificate that ends first among these, in PEM: the client's own, and those that lead to its authority.
    /// Nothing when one cannot be read.
    pub fn of_pem(certificates: &[u8]) -> Option<Self> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().ok()?;
        let each: Vec<_> = chain.iter().map(|certificate| Self::read(certificate)).collect::<Option<_>>()?;
        each.into_iter().min_by_key(|validity| validity.ends)
    }

    /// How it stands.
    pub fn standing(&self, now: SystemTime) -> Standing {
        let Ok(left) = self.ends.duration_since(now) else { return Standing::Invalid };
        let life = self.ends.duration_since(self.begins).unwrap_or_default();
        if now < self.begins {
            Standing::Invalid
        } else if left < SOON.min(life / 5) {
            Standing::EndsSoon
        } else {
            Standing::Good
        }
    }

    /// `Certificate`, `tbsCertificate`, `validity` (RFC 5280 §4.1).
    fn read(der: &[u8]) -> Option<Self> {
        let (certificate, _) = element(der, SEQUENCE)?;
        let (mut fields, _) = element(certificate, SEQUENCE)?;
        // The version may be missing; then come the serial number, the algorithm and the issuer.
        if let Some((_, behind)) = element(fields, VERSION) {
            fields = behind;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, fields) = element(fields, tag)?;
        }
        let (validity, _) = element(fields, SEQUENCE)?;
        let (begins, behind) = time(validity)?;
        let (ends, _) = time(behind)?;
        Some(Self { begins, ends })
    }
}

impl Herald {
    /// What is to be told now of this certificate, if anything.
    pub fn news(&mut self, validity: Validity, now: SystemTime) -> Option<Standing> {
        let standing = validity.standing(now);
        let known = self.0.replace((validity, standing));
        (standing != Standing::Good && known != Some((validity, standing))).then_some(standing)
    }
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The content of the first element, which must have this tag, and what stands behind it (X.690 §8.1). Definite lengths
/// only, as DER has them.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x80 => return None,
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    if found != tag {
        return None;
    }
    rest.split_at_checked(length)
}

/// `YYMMDDhhmmssZ` until 2049, `YYYYMMDDhhmmssZ` from 2050 on.
fn time(bytes: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (text, behind, century) = match element(bytes, UTC_TIME) {
        Some((text, behind)) => {
            let century = if text.first()? < &b'5' { "20" } else { "19" };
            (text, behind, century)
        }
        None => {
            let (text, behind) = element(bytes, GENERALIZED_TIME)?;
            (text, behind, "")
        }
    };
    let text = format!("{century}{}", std::str::from_utf8(text).ok()?);
    if text.len() != 15 || !text.is_ascii() {
        return None;
    }
    let part = |from: usize, to: usize| &text[from..to];
    let (day, clock) = ([part(0, 4), part(4, 6), part(6, 8)], [part(8, 10), part(10, 12), part(12, 15)]);
    Some((rfc3339::parse(&format!("{}T{}", day.join("-"), clock.join(":")))?, behind))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn certificate(begins: rcgen::SerialNumber, years: (i32, i32)) -> String {
        let mut params = rcgen::CertificateParams::new(["a".to_owned()]).unwrap();
        params.serial_number = Some(begins);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 3, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn a_certificate_is_valid_from_when_until_when_it_says_on_both_sides_of_2050() {
        let serial = || rcgen::SerialNumber::from_slice(&[7; 20]);
        let validity = |years| Validity::of_pem(certificate(serial(), years).as_bytes()).unwrap();
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        for (years, begins, ends) in [
            ((2026, 2027), 1_767_225_600, 1_803_859_200),
            ((1999, 2049), 915_148_800, 2_498_169_600),
            ((2000, 2050), 946_684_800, 2_529_705_600),
        ] {
            let found = validity(years);
            assert_eq!((seconds(found.begins), seconds(found.ends)), (begins, ends), "{years:?}");
        }
        // Of a chain it is the one that ends first.
        let chain = certificate(serial(), (2026, 2028)) + &certificate(serial(), (2026, 2027));
        assert_eq!(Validity::of_pem(chain.as_bytes()), Some(validity((2026, 2027))));
    }

    #[test]
    fn a_fifth_of_its_life_before_its_end_it_ends_soon_and_at_most_two_weeks() {
        let day = 24 * 3600;
        let standing = |life: u64, left: u64| {
            Validity { begins: at(1), ends: at(1 + life) }.standing(at(1 + life - left))
        };
        assert_eq!(standing(3600, 721), Standing::Good);
        assert_eq!(standing(3600, 719), Standing::EndsSoon);
        assert_eq!(standing(365 * day, 14 * day), Standing::Good);
        assert_eq!(standing(365 * day, 14 * day - 1), Standing::EndsSoon);
        let year = Validity { begins: at(day), ends: at(365 * day) };
        assert_eq!(year.standing(at(365 * day + 1)), Standing::Invalid);
        assert_eq!(year.standing(at(1)), Standing::Invalid);
    }

    #[test]
    fn each_certificate_is_told_of_once_for_each_change_for_the_worse() {
        let (mut herald, one) = (Herald::default(), Validity { begins: at(0), ends: at(1_000) });
        let mut news = |validity, now| herald.news(validity, at(now));
        assert_eq!(news(one, 100), None);
        assert_eq!((news(one, 900), news(one, 901)), (Some(Standing::EndsSoon), None));
        assert_eq!((news(one, 1_001), news(one, 1_002)), (Some(Standing::Invalid), None));
        let two = Validity { begins: at(900), ends: at(5_000) };
        assert_eq!((news(two, 1_003), news(one, 1_004)), (None, Some(Standing::Invalid)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0_usize..400, byte: u8) {
            let _ = Validity::read(&bytes);
            let made = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
            let mut der = made.cert.der().to_vec();
            if let Some(place) = der.get_mut(at) {
                *place = byte;
            }
            let _ = Validity::read(&der);
        }
    }
}
