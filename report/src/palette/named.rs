// Colours that a port or a region keeps in every chart, of the report and of the dashboards.

/// Of what is summed up as "other".
const OTHER: &str = "#7f7f7f";

/// Ports as they are named in charts.
const PORTS: &[(&str, &str)] = &[
    ("445/tcp", "#1f77b4"),
    ("135/tcp", "#e67808"),
    ("139/tcp", "#aec7e8"),
    ("1433/tcp", "#d62728"),
    ("Ping (ICMP)", "#8c564b"),
    ("22/tcp", "#2ca02c"),
    ("23/tcp", "#9467bd"),
    ("80/tcp", "#17becf"),
    ("443/tcp", "#9edae5"),
    ("8080/tcp", "#98df8a"),
    ("3389/tcp", "#e377c2"),
    ("5060/udp", "#bcbd22"),
    ("27649/udp", "#ff9896"),
    ("9415/tcp", "#f7b6d2"),
    ("1026/udp", "#ffbb78"),
    ("1027/udp", "#dbdb8d"),
    ("1028/udp", "#c49c94"),
    ("1030/udp", "#e7ba52"),
    ("137/udp", "#c5b0d5"),
    ("6379/tcp", "#393b79"),
    ("5900/tcp", "#637939"),
    ("53/udp", "#8c6d31"),
    ("123/udp", "#843c39"),
    ("2323/tcp", "#7b4173"),
];

/// Regions by their code.
const REGIONS: &[(&str, &str)] = &[
    ("CN", "#d62728"),
    ("US", "#1f77b4"),
    ("JP", "#e67808"),
    ("KR", "#2ca02c"),
    ("TW", "#9467bd"),
    ("RU", "#8c564b"),
    ("BR", "#98df8a"),
    ("DE", "#e377c2"),
    ("FR", "#17becf"),
    ("IN", "#bcbd22"),
    ("GB", "#aec7e8"),
    ("NL", "#ffbb78"),
    ("VN", "#ff9896"),
    ("HK", "#c5b0d5"),
    ("IT", "#dbdb8d"),
    ("TH", "#c49c94"),
    ("UA", "#9edae5"),
    ("ID", "#f7b6d2"),
    ("SG", "#e7ba52"),
    ("unknown", "#c7c7c7"),
];
