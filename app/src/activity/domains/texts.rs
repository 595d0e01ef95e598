//! The texts of the prompt packs, written for this program.

pub const CODE: &str = r#"use std::collections::HashMap;

/// Counts words, ignoring case and punctuation at either end.
pub fn count_words(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        if !word.is_empty() {
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    counts
}

#[test]
fn counts_what_is_there() {
    let counts = count_words("The tide, the TIDE; and the moon.");
    assert_eq!(counts["the"], 3);
    assert_eq!(counts.get("sea"), None);
}

# The same in Python, with the words that are used most.
from collections import Counter
import re

WORD = re.compile(r"\w+", re.UNICODE)

def most_common(text: str, limit: int = 10) -> list[tuple[str, int]]:
    """Returns the most frequent words and how often each occurs."""
    counts = Counter(match.group().lower() for match in WORD.finditer(text))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:limit]

if __name__ == "__main__":
    with open("notes.txt", encoding="utf-8") as source:
        for word, count in most_common(source.read()):
            print(f"{count:6d}  {word}")
"#;

pub const MATHEMATICS: &str = r"Theorem. Let $a_1, \dots, a_n$ be positive real numbers. Then their arithmetic mean is at least
their geometric mean, that is,
$$\frac{a_1 + a_2 + \cdots + a_n}{n} \ge \sqrt[n]{a_1 a_2 \cdots a_n},$$
with equality if and only if $a_1 = a_2 = \cdots = a_n$.

Proof. Write $m$ for the arithmetic mean. The function $f(x) = e^{x-1} - x$ has derivative $f'(x) = e^{x-1} - 1$, which is
negative for $x < 1$ and positive for $x > 1$, so that $f(x) \ge f(1) = 0$ for all real $x$. Put $x = a_i / m$ to obtain
$a_i / m \le e^{a_i/m - 1}$ for every $i$, and multiply these $n$ inequalities:
$$\prod_{i=1}^{n} \frac{a_i}{m} \le \exp\left(\sum_{i=1}^{n} \frac{a_i}{m} - n\right) = e^{n - n} = 1.$$
Hence $a_1 a_2 \cdots a_n \le m^n$, which is the claim. Equality holds only where every $a_i / m = 1$. $\blacksquare$

Exercise. A closed box has a square base of side $s$ and height $h$, and its surface is $2s^2 + 4sh = 54$. Show that its volume
$V = s^2 h$ is at most $27$. Hint: apply the theorem to the three numbers $2s^2$, $2sh$ and $2sh$, whose product is $8 V^2$;
thus $8V^2 \le 18^3$ and $V^2 \le 729$, with equality where $s = h = 3$.
";

pub const ENGLISH: &str = "The ferry left an hour late, and nobody on the quay seemed to mind. Two fishermen were mending a net
that had been mended so often that hardly a yard of it was still the net they had bought, and a boy sat on a bollard,
swinging his legs and counting the gulls aloud until he lost his place and began again. Out beyond the harbour wall the water
had the dull shine of pewter. My aunt, who had promised herself that she would not look back, looked back twice: once for the
house with the green shutters, and once for the dog, which had followed us as far as the customs shed and stood there with one
paw raised, as though it had been asked a question and wished to be fair. When at last the engine took hold and the ropes came
in, she unwrapped the sandwiches, gave me the larger half, and remarked that islands were much easier to love from a distance.
I was nine years old and believed her entirely. It has taken me most of my life to understand that she was talking about
something else.
";

pub const CHINESE: &str = "老城的南边有一条不长的巷子，巷口长着一棵上百年的槐树。每到初夏，白色的槐花落满青石板，走过的人鞋底都带着香气。\
巷子里住着一位修钟表的师傅，姓沈，今年七十三岁。他的铺子只有两张桌子那么大，墙上却挂着四十多座钟，走得有快有慢，整点的时候此起彼伏地响，\
像一群性子不同的人在争着说话。常有人问他，为什么不把它们调到同一个时刻。沈师傅总是笑一笑，说：“表是给人看的，人过的日子本来就不一样快。”\
去年冬天，城里要修地铁，巷子被划进了施工的范围。邻居们陆续搬走了，只有他每天照旧开门，把一座座钟上好发条，擦干净玻璃，再写上主人的名字和电话。\
到了春天，图纸改了，线路往东移了两百米，巷子留了下来。搬走的人听说以后，又一家一家地搬了回来。那天傍晚，槐树刚刚发芽，铺子里的钟同时敲了六下，\
一声不差。街坊们都说这是巧合，沈师傅没有解释，只是把门前的灯点亮了。
";

pub const FRENCH: &str =
    "Ce matin-là, la boulangère avait oublié d'allumer l'enseigne, et les premiers clients hésitaient devant la
porte comme s'ils s'étaient trompés de rue. À l'intérieur, pourtant, rien n'avait changé : l'odeur du beurre chaud, le plancher
qui grinçait près de la caisse, le vieux calendrier des postes que personne n'osait décrocher. Monsieur Lefèvre, qui achetait
depuis trente ans la même demi-baguette bien cuite, demanda s'il était arrivé quelque chose. « Mais non, répondit-elle, c'est
mon fils qui part aujourd'hui pour Québec, et j'ai la tête ailleurs. » Alors, sans se concerter, chacun se mit à raconter un
départ : celui d'un frère marin, celui d'une fiancée, celui d'un chat que l'on n'avait jamais revu. La file s'allongeait
jusqu'au trottoir, il commençait à pleuvoir, et pourtant nul ne se plaignait d'attendre. Quand le garçon descendit enfin avec sa
valise, tout le quartier était là pour lui serrer la main, et il dut refuser onze croissants, deux tartes et un parapluie.
";

pub const JSON: &str = r#"{
  "station": {"id": "BRK-0417", "name": "Brekke Lighthouse", "position": {"latitude": 61.0179, "longitude": 5.4312}},
  "interval_minutes": 10,
  "units": {"temperature": "celsius", "wind": "m/s", "pressure": "hPa", "visibility": "km"},
  "observations": [
    {"time": "2024-11-03T06:00:00Z", "temperature": 4.7, "wind": {"speed": 11.2, "gust": 16.9, "direction": 245},
     "pressure": 998.4, "visibility": 8.5, "conditions": ["rain", "overcast"], "manual": false},
    {"time": "2024-11-03T06:10:00Z", "temperature": 4.6, "wind": {"speed": 12.0, "gust": 17.4, "direction": 247},
     "pressure": 998.1, "visibility": 7.9, "conditions": ["rain"], "manual": false},
    {"time": "2024-11-03T06:20:00Z", "temperature": null, "wind": {"speed": 12.8, "gust": 19.1, "direction": 251},
     "pressure": 997.7, "visibility": 6.2, "conditions": ["heavy rain", "gale"], "manual": true}
  ],
  "alerts": [
    {"kind": "wind", "level": 2, "issued": "2024-11-03T05:45:00Z", "expires": null, "areas": ["Outer Sula", "Brekke Sound"]},
    {"kind": "sensor", "level": 1, "issued": "2024-11-03T06:21:13Z", "expires": null, "areas": []}
  ],
  "checksum": "5f1c09e2", "next": "/v2/stations/BRK-0417/observations?after=2024-11-03T06:20:00Z", "complete": true
}
"#;
