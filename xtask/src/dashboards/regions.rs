//! Names of the regions that reports print; others are shown by their ISO 3166-1 code.

/// Code, English name, Japanese name.
pub(super) const NAMES: &[(&str, &str, &str)] = &[
    ("AR", "Argentina", "アルゼンチン"), ("AT", "Austria", "オーストリア"), ("AU", "Australia", "オーストラリア"),
    ("BD", "Bangladesh", "バングラデシュ"), ("BE", "Belgium", "ベルギー"), ("BG", "Bulgaria", "ブルガリア"),
    ("BR", "Brazil", "ブラジル"), ("CA", "Canada", "カナダ"), ("CH", "Switzerland", "スイス"),
    ("CL", "Chile", "チリ"), ("CN", "China", "中国"), ("CO", "Colombia", "コロンビア"), ("CZ", "Czechia", "チェコ"),
    ("DE", "Germany", "ドイツ"), ("DK", "Denmark", "デンマーク"), ("EG", "Egypt", "エジプト"), ("ES", "Spain", "スペイン"),
    ("FI", "Finland", "フィンランド"), ("FR", "France", "フランス"), ("GB", "United Kingdom", "イギリス"),
    ("GR", "Greece", "ギリシャ"), ("HK", "Hong Kong", "香港"), ("HU", "Hungary", "ハンガリー"),
    ("ID", "Indonesia", "インドネシア"), ("IE", "Ireland", "アイルランド"), ("IL", "Israel", "イスラエル"),
    ("IN", "India", "インド"), ("IR", "Iran", "イラン"), ("IT", "Italy", "イタリア"), ("JP", "Japan", "日本"),
    ("KR", "South Korea", "韓国"), ("KZ", "Kazakhstan", "カザフスタン"), ("LT", "Lithuania", "リトアニア"),
    ("MX", "Mexico", "メキシコ"), ("MY", "Malaysia", "マレーシア"), ("NG", "Nigeria", "ナイジェリア"),
    ("NL", "Netherlands", "オランダ"), ("NO", "Norway", "ノルウェー"), ("PA", "Panama", "パナマ"),
    ("PH", "Philippines", "フィリピン"), ("PK", "Pakistan", "パキスタン"), ("PL", "Poland", "ポーランド"),
    ("PT", "Portugal", "ポルトガル"), ("RO", "Romania", "ルーマニア"), ("RU", "Russia", "ロシア"),
    ("SA", "Saudi Arabia", "サウジアラビア"), ("SC", "Seychelles", "セーシェル"), ("SE", "Sweden", "スウェーデン"),
    ("SG", "Singapore", "シンガポール"), ("TH", "Thailand", "タイ"), ("TR", "Türkiye", "トルコ"), ("TW", "Taiwan", "台湾"),
    ("UA", "Ukraine", "ウクライナ"), ("US", "United States", "アメリカ合衆国"), ("VN", "Vietnam", "ベトナム"),
    ("ZA", "South Africa", "南アフリカ"), ("private", "private addresses", "プライベートアドレス"),
    ("unknown", "unknown", "不明"),
];
