//! Pop-up spam: what Windows' Messenger service was sent over UDP in the years around 2005.

/// The four messages that the report of November 2005 prints in section 2.4, each with `HOST` where it
/// names one.
pub const MESSAGES: [&str; 4] = [
    "Critical Error\nThe Microsoft Windows system contains invalid registry entries and your computer will crash. \
     Please download the Windows registry application from:\nwww.HOST.com\nTo fix your system immediately.",
    "STOP! System has encountered an Internal Error\nYour registry is corrupted.\nWe recommend a complete system \
     scan.\nVisit\nwww.HOST.com\nTo repair now\nFAILURE TO ACT NOW MAY LEAD TO SYSTEM FAILURE!",
    "STOP! WINDOWS REQUIRES IMMEDIATE ATTENTION.\nWindows has found CRITICAL SYSTEM ERRORS.\nTo fix the errors \
     please do the following:\n1. Download Registry Repair from: http://www.HOST.com\n2. Install Registry Repair\n\
     3. Run Registry Repair\n4. Reboot your computer\nFAILURE TO ACT NOW MAY LEAD TO DATA LOSS AND CORRUPTION!",
    "STOP! WINDOWS REQUIRES IMMEDIATE ATTENTION.\nWindows has found 55 Critical System Errors.\nTo fix the errors \
     please do the following:\n1. Download Repair Registry Pro from: www.HOST.com\n2. Install Repair Registry Pro\n\
     3. Run Repair Registry Pro\n4. Reboot your computer\nFAILURE TO ACT NOW MAY LEAD TO SYSTEM FAILURE!",
];

/// A string of NDR: greatest length, offset, length, the bytes, aligned.
fn ndr(text: &str) -> Vec<u8> {
    let length = (text.len() as u32 + 1).to_le_bytes();
    let mut bytes = [&length[..], &[0; 4], &length, text.as_bytes(), &[0]].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The payload of a request of DCE/RPC without a connection to the Messenger service (C706, chapter 12;
/// `NetrSendMessage` of MS-MSRP): `message` from SYSTEM to ALERT. `number` makes its activity and sequence.
pub fn request(number: u32, message: &str) -> Vec<u8> {
    let mut packet = vec![4, 0, 0x28, 0, 0x10, 0, 0, 0];
    packet.extend([0; 16]);
    packet.extend([0xf8, 0x91, 0x7b, 0x5a, 0, 0xff, 0xd0, 0x11, 0xa9, 0xb2, 0, 0xc0, 0x4f, 0xb6, 0xe6, 0xfc]);
    // The activity is another one each time.
    packet.extend(number.wrapping_mul(0x9e37_79b9).to_le_bytes().repeat(4));
    packet.extend([0; 4]);
    packet.extend([1, 0, 0, 0]);
    packet.extend(number.to_le_bytes());
    packet.extend([0, 0, 0xff, 0xff, 0xff, 0xff]);
    let body = [ndr("SYSTEM"), ndr("ALERT"), ndr(message)].concat();
    packet.extend((body.len() as u16).to_le_bytes());
    packet.extend([0; 4]);
    [packet, body].concat()
}
