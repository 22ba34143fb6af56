//! Where the sensor's addresses are in a text, in whatever notation, and among bytes. Each place is read as
//! an address and looked up, so the cost does not depend on how many addresses there are.

use super::own::{OwnAddresses, SHORT};
use std::ops::Range;

/// Digits of a number below [`SHORT`].
const SHORT_DIGITS: usize = 6;

/// A number between separators, as it is read in base 10, by its prefix (`0x`, `x`, `0o`, `o`, `0`), and in base 16.
type Readings = [Option<u32>; 3];

/// Finds the sensor's addresses among the characters of a text, but for IPv6 addresses with colons: as numbers between
/// separators, and as one number or word. Long numbers in decimal, octal or binary digits are left out, because all long
/// numbers are hidden.
pub(super) fn in_text(own: &OwnAddresses, text: &[char], found: &mut Vec<Range<usize>>) {
    if own.is_empty() {
        return;
    }
    quads(own, text, found);
    hexadecimal(own, text, found);
    nibbles(own, text, found);
    if own.may_be_short() {
        short_numbers(own, text, found);
    }
}

/// Where single addresses of the sensor are among bytes, in network byte order, and of IPv4 also reversed.
pub(super) fn singles_in_bytes(own: &OwnAddresses, bytes: &[u8]) -> Vec<Range<usize>> {
    in_bytes(own, bytes, OwnAddresses::has_single_v4, OwnAddresses::has_single_v6)
}

/// Where addresses of the sensor are among bytes that are no text, or not all of them. What a prefix has of IPv4 in
/// characters of ASCII alone is a text: an address in four letters would hide words.
pub(super) fn all_in_bytes(own: &OwnAddresses, bytes: &[u8]) -> Vec<Range<usize>> {
    let is_text = |byte: u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    in_bytes(
        own,
        bytes,
        |own, part| {
            own.has_v4(part) && (own.has_single_v4(part) || !part.to_be_bytes().into_iter().all(is_text))
        },
        OwnAddresses::has_v6,
    )
}

fn in_bytes(
    own: &OwnAddresses,
    bytes: &[u8],
    has_v4: impl Fn(&OwnAddresses, u32) -> bool,
    has_v6: impl Fn(&OwnAddresses, u128) -> bool,
) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if own.is_empty() {
        return found;
    }
    for (at, part) in bytes.array_windows().enumerate() {
        let part = u32::from_be_bytes(*part);
        if has_v4(own, part) || has_v4(own, part.swap_bytes()) {
            found.push(at..at + 4);
        }
    }
    for (at, part) in bytes.array_windows().enumerate() {
        if has_v6(own, u128::from_be_bytes(*part)) {
            found.push(at..at + 16);
        }
    }
    found
}

/// Numbers between separators: in bases 8, 10 and 16, forwards and backwards, and with fewer than four numbers, of
/// which the last has the rest of the address (`inet_aton`).
fn quads(own: &OwnAddresses, text: &[char], found: &mut Vec<Range<usize>>) {
    if own.is_without_v4() {
        return;
    }
    for begin in 0..text.len() {
        if !text[begin].is_ascii_hexdigit() && !is_prefix(text[begin]) {
            continue;
        }
        if let Some(end) = quad(own, text, begin) {
            found.push(begin..end);
        }
    }
}

/// Where such an address that begins at `begin` ends. One of four numbers may have further digits before it
/// and after it.
fn quad(own: &OwnAddresses, text: &[char], begin: usize) -> Option<usize> {
    let mut numbers: [Readings; 4] = [[None; 3]; 4];
    let mut places = [(0, 0); 4];
    let (mut count, mut at) = (0, begin);
    while count < 4 {
        let Some((values, length)) = number(&text[at..]) else { break };
        numbers[count] = values;
        places[count] = (at, at + length);
        count += 1;
        at += length;
        let Some(separator) = separator_at(&text[at..]) else { break };
        at += separator;
    }
    if count == 4 {
        let (first, last) = places[3];
        for end in (first + 1..=last).rev() {
            // A part of a number, whose prefix may be all that there is of it.
            let Some((values, length)) = number(&text[first..end]) else { continue };
            if length < end - first {
                continue;
            }
            numbers[3] = values;
            if is_own_quad(own, &numbers) {
                return Some(end);
            }
        }
    }
    if begin > 0 && text[begin - 1].is_ascii_digit() {
        return None;
    }
    // Numbers that follow each other may be of several addresses, so the longest match counts.
    (2..=count.min(3))
        .rev()
        .find(|count| is_own_quad(own, &numbers[..*count]))
        .map(|count| places[count - 1].1)
}

/// Whether numbers, each as [`number`] reads it, are an address of the sensor.
fn is_own_quad(own: &OwnAddresses, numbers: &[Readings]) -> bool {
    // Bases may be mixed, as in `0300.0.2.1`: the one that a prefix tells.
    let mixed = |values: &Readings| values[1].or(values[0]);
    is_own_reading(own, numbers, mixed)
        || (0..3).any(|base| is_own_reading(own, numbers, |values: &Readings| values[base]))
}

fn is_own_reading(
    own: &OwnAddresses,
    numbers: &[Readings],
    reading: impl Fn(&Readings) -> Option<u32>,
) -> bool {
    let mut values = [0; 4];
    for (value, readings) in values.iter_mut().zip(numbers) {
        let Some(read) = reading(readings) else { return false };
        *value = read;
    }
    let values = &mut values[..numbers.len()];
    let forwards = joined_address(values);
    if values.len() < 4 {
        // Pairs of small numbers are in most texts, and in every prefix that has zeros in the middle.
        let is_large = values.last().is_some_and(|last| *last > 0xff);
        return forwards
            .is_some_and(|address| own.has_single_v4(address) || (is_large && own.has_v4(address)));
    }
    values.reverse();
    [forwards, joined_address(values)].into_iter().flatten().any(|address| own.has_v4(address))
}

/// Runs of hexadecimal digits: the eight of an IPv4 address and the 32 of one of IPv6, also within longer ones;
/// and `0x` with as many digits as the number has.
fn hexadecimal(own: &OwnAddresses, text: &[char], found: &mut Vec<Range<usize>>) {
    let (mut run, mut value) = (0_usize, 0_u128);
    for (at, c) in text.iter().enumerate() {
        let Some(digit) = c.to_digit(16) else {
            run = 0;
            if matches!(c, 'x' | 'X') && at > 0 && text[at - 1] == '0' {
                numbers_at(text, at + 1, 16, 8, |number, end| {
                    if own.is_number(number) {
                        found.push(at - 1..end);
                    }
                });
            }
            continue;
        };
        run += 1;
        value = value << 4 | u128::from(digit);
        if run >= 8 && own.is_number(value as u32) {
            found.push(at - 7..at + 1);
        }
        if run >= 32 && own.has_v6(value) {
            found.push(at - 31..at + 1);
        }
    }
}

/// IPv6 addresses as names of DNS have them: 32 hexadecimal digits, the last one first, with points between them (RFC
/// 3596, 2.5).
fn nibbles(own: &OwnAddresses, text: &[char], found: &mut Vec<Range<usize>>) {
    // Digits at even and at odd places: how many, and what they are.
    let mut runs = [(0_usize, 0_u128); 2];
    for (at, c) in text.iter().enumerate() {
        let (run, value) = &mut runs[at % 2];
        let Some(digit) = c.to_digit(16) else {
            *run = 0;
            continue;
        };
        if at > 0 && text[at - 1] != '.' {
            *run = 0;
        }
        *run += 1;
        *value = *value >> 4 | u128::from(digit) << 124;
        if *run >= 32 && own.has_v6(*value) {
            found.push(at - 62..at + 1);
        }
    }
}

/// Numbers of few digits, in decimal, and in octal after a zero.
fn short_numbers(own: &OwnAddresses, text: &[char], found: &mut Vec<Range<usize>>) {
    for at in 0..text.len() {
        let radix = match text[at] {
            '0' => 8,
            '1'..='9' => 10,
            _ => continue,
        };
        let digits = at + usize::from(radix == 8);
        numbers_at(text, digits, radix, SHORT_DIGITS - (digits - at), |number, end| {
            if number < SHORT && own.is_short_number(number) {
                found.push(at..end);
            }
        });
    }
}

/// Calls `take` with the number that each number of digits from `begin` on makes, `most` at most and none of more
/// than 32 bits, and with where it ends. The first digit is not zero.
fn numbers_at(text: &[char], begin: usize, radix: u32, most: usize, mut take: impl FnMut(u32, usize)) {
    let mut number = 0;
    for (at, c) in text.iter().enumerate().skip(begin).take(most) {
        let Some(digit) = c.to_digit(radix) else { return };
        if at == begin && digit == 0 {
            return;
        }
        number = number * radix + digit;
        take(number, at + 1);
    }
}

/// Letters that numbers in base 8 and 16 may begin with, also after a zero.
fn is_prefix(c: char) -> bool {
    matches!(c, 'x' | 'X' | 'o' | 'O')
}

/// The number that digits at the beginning make, `None` when there are none or they make more than 32 bits; and how many
/// digits, `most` at most.
fn digits(text: &[char], radix: u32, most: usize) -> (Option<u32>, usize) {
    let mut value = Some(0_u32);
    let mut length = 0;
    for digit in text.iter().take(most).map_while(|c| c.to_digit(radix)) {
        value = value.and_then(|value| value.checked_mul(radix)?.checked_add(digit));
        length += 1;
    }
    (value.filter(|_| length > 0), length)
}

/// The number at the beginning in base 10, by its prefix (`0x`, `x`, `0o`, `o`, `0`), and in base 16 if it has at
/// most two digits; and its length.
fn number(text: &[char]) -> Option<(Readings, usize)> {
    let zero = usize::from(text.first() == Some(&'0'));
    let prefix = match text.get(zero) {
        Some(c) if is_prefix(*c) => zero + 1,
        _ => 0,
    };
    let rest = &text[prefix..];
    if prefix > 0 && matches!(text[prefix - 1], 'x' | 'X') {
        let (value, length) = digits(rest, 16, 9);
        return value.map(|value| ([None, Some(value), Some(value)], prefix + length));
    }
    let (decimal, length) = digits(rest, 10, 13);
    // All digits of the number, or none.
    let octal = || Some(digits(&rest[..length], 8, length)).filter(|(_, octal)| *octal == length)?.0;
    if prefix > 0 {
        return decimal.map(|decimal| ([Some(decimal), octal(), None], prefix + length));
    }
    let (hex, hex_length) = digits(rest, 16, 3);
    let hex = hex.filter(|_| hex_length <= 2);
    if length == 0 || (hex_length > length && hex_length <= 2) {
        return hex.map(|value| ([None, None, Some(value)], hex_length));
    }
    let octal = (rest[0] == '0').then(octal).flatten();
    Some(([decimal, octal, hex], length))
}

/// What separates the numbers of an address, if the text begins with it: its length. Up to six characters that
/// are no letters and no digits of ASCII, or an escape of a point.
fn separator_at(text: &[char]) -> Option<usize> {
    const LONGER: [&str; 6] = ["%2e", "\\x", "[dot]", "(dot)", " dot ", "dot"];
    for separator in LONGER {
        if text.len() >= separator.len()
            && text.iter().zip(separator.chars()).all(|(a, b)| a.to_ascii_lowercase() == b)
        {
            return Some(separator.len());
        }
    }
    let length = text.iter().take(7).take_while(|c| !c.is_ascii_alphanumeric()).count();
    (1..=6).contains(&length).then_some(length)
}

/// The address of one to four numbers, of which the last has the rest of the bits.
fn joined_address(numbers: &[u32]) -> Option<u32> {
    let (last, first) = numbers.split_last()?;
    let mut address = 0;
    for (at, number) in first.iter().enumerate() {
        address |= u32::from(u8::try_from(*number).ok()?) << (24 - 8 * at);
    }
    let bits = 32 - 8 * first.len() as u32;
    (bits == 32 || u64::from(*last) < 1 << bits).then_some(address | last)
}
