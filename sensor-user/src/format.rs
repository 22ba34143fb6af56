//! Numbers and durations as people read them.

/// Whole percent, rounded half up, as the reports print them.
pub fn percent(part: u64, whole: u64) -> u64 {
    let (part, whole) = (u128::from(part), u128::from(whole));
    if whole == 0 { 0 } else { ((200 * part + whole) / (2 * whole)) as u64 }
}

/// A number with its thousands apart: `543,415`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration as people say it, in its two greatest units: `3 d 4 h`.
pub(crate) fn spoken(seconds: f64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds.max(0.0).round() as u64;
    let mut words = Vec::new();
    for (size, unit) in UNITS {
        if rest >= size && words.len() < 2 {
            words.push(format!("{} {unit}", thousands(rest / size)));
            rest %= size;
        } else if !words.is_empty() {
            // The next smaller unit is none: what follows is too small to be said.
            break;
        }
    }
    if words.is_empty() { "0 s".to_owned() } else { words.join(" ") }
}
