//! Signals by name and by CRI's own numbers.

use towline_cri::v1;

/// SIGTERM.
pub(crate) const TERM: i32 = 15;

/// SIGKILL.
pub(crate) const KILL: i32 = 9;

/// The first real-time signal that programs see: the C library keeps two for itself.
const RTMIN: i32 = 34;

/// The last real-time signal.
const RTMAX: i32 = 64;

/// The kernel's number of `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`; `None` for what is none.
pub(crate) fn parse(text: &str) -> Option<i32> {
    let name = text.trim().to_ascii_uppercase();
    if let Ok(number) = name.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let name = name.replace("PLUS", "+").replace("MINUS", "-");
    for (prefix, base, sign) in [("RTMIN", RTMIN, 1), ("RTMAX", RTMAX, -1)] {
        let Some(rest) = name.strip_prefix(prefix) else {
            continue;
        };
        let offset = match rest {
            "" => 0,
            _ => rest
                .strip_prefix(if sign > 0 { '+' } else { '-' })?
                .parse::<i32>()
                .ok()?,
        };
        let number = base + sign * offset;
        return (RTMIN..=RTMAX).contains(&number).then_some(number);
    }
    let number = match name.as_str() {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "TRAP" => 5,
        "ABRT" | "IOT" => 6,
        "BUS" => 7,
        "FPE" => 8,
        "KILL" => KILL,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => TERM,
        "STKFLT" => 16,
        "CHLD" | "CLD" => 17,
        "CONT" => 18,
        "STOP" => 19,
        "TSTP" => 20,
        "TTIN" => 21,
        "TTOU" => 22,
        "URG" => 23,
        "XCPU" => 24,
        "XFSZ" => 25,
        "VTALRM" => 26,
        "PROF" => 27,
        "WINCH" => 28,
        "IO" | "POLL" => 29,
        "PWR" => 30,
        "SYS" => 31,
        _ => return None,
    };
    Some(number)
}

/// The signal that stops a container: the pod's choice, else the image's, else TERM.
pub(crate) fn stop(cri: i32, image: &str) -> i32 {
    match v1::Signal::try_from(cri) {
        Ok(signal) if signal != v1::Signal::RuntimeDefault => parse(signal.as_str_name()),
        _ => parse(image),
    }
    .unwrap_or(TERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_of_cri_has_a_number() {
        for number in 1..=65 {
            let signal = v1::Signal::try_from(number).unwrap();
            assert!(parse(signal.as_str_name()).is_some(), "{signal:?}");
        }
        assert_eq!(stop(v1::Signal::Sigrtminplus3 as i32, "SIGINT"), 37);
        assert_eq!(stop(v1::Signal::Sigrtmaxminus1 as i32, ""), 63);
        assert_eq!(stop(0, "SIGQUIT"), 3);
        assert_eq!(stop(0, "quit"), 3);
        assert_eq!(stop(0, "nonsense"), TERM);
        for none in ["", "0", "65", "SIGRTMIN+31", "SIGRTMIN-1", "SIGFOO"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
