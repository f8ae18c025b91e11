package transcript

import (
	"strings"

	"whisper-appliance/internal/fault"
)

// languageTable is Whisper's hundred languages in the order of its tokens:
// code, then its English name. The first 99 are known to every multilingual
// model, the last from large-v3 on. "jw" is Whisper's own code for Javanese.
const languageTable = `en english
zh chinese
de german
es spanish
ru russian
ko korean
fr french
ja japanese
pt portuguese
tr turkish
pl polish
ca catalan
nl dutch
ar arabic
sv swedish
it italian
id indonesian
hi hindi
fi finnish
vi vietnamese
he hebrew
uk ukrainian
el greek
ms malay
cs czech
ro romanian
da danish
hu hungarian
ta tamil
no norwegian
th thai
ur urdu
hr croatian
bg bulgarian
lt lithuanian
la latin
mi maori
ml malayalam
cy welsh
sk slovak
te telugu
fa persian
lv latvian
bn bengali
sr serbian
az azerbaijani
sl slovenian
kn kannada
et estonian
mk macedonian
br breton
eu basque
is icelandic
hy armenian
ne nepali
mn mongolian
bs bosnian
kk kazakh
sq albanian
sw swahili
gl galician
mr marathi
pa punjabi
si sinhala
km khmer
sn shona
yo yoruba
so somali
af afrikaans
oc occitan
ka georgian
be belarusian
tg tajik
sd sindhi
gu gujarati
am amharic
yi yiddish
lo lao
uz uzbek
fo faroese
ht haitian creole
ps pashto
tk turkmen
nn nynorsk
mt maltese
sa sanskrit
lb luxembourgish
my myanmar
bo tibetan
tl tagalog
mg malagasy
as assamese
tt tatar
haw hawaiian
ln lingala
ha hausa
ba bashkir
jw javanese
su sundanese
yue cantonese
`

// Language is a language that Whisper knows.
type Language struct {
	Code string // ISO 639-1, three letters where that has none: "en", "haw"
	Name string // English, lower case: "english", "haitian creole"
}

// Languages lists Whisper's languages in the order of its tokens.
func Languages() []Language {
	var list []Language
	for line := range strings.Lines(languageTable) {
		code, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		list = append(list, Language{code, name})
	}
	return list
}

// LanguageName is the English name for a code as Whisper and OpenAI write it,
// "english"; "" for a code that is none of Whisper's.
func LanguageName(code string) string {
	for _, l := range Languages() {
		if l.Code == code {
			return l.Name
		}
	}
	return ""
}

// LanguageCode is Whisper's code for a language given by code or English name,
// in any case, with the other names that some of them have ("burmese",
// "nb"). Anything else, "" and "auto" included, is a fault of kind BadInput:
// whether a language is to be detected is the caller's question.
func LanguageCode(nameOrCode string) (string, error) {
	wanted := strings.ToLower(strings.TrimSpace(nameOrCode))
	wanted = otherName(wanted)
	for _, l := range Languages() {
		if l.Code == wanted || l.Name == wanted {
			return l.Code, nil
		}
	}
	err := fault.New(fault.BadInput, "unknown_language",
		"%q is not a language that Whisper knows", fault.Short(nameOrCode)).On("language")
	primary, _, regional := strings.Cut(strings.ReplaceAll(wanted, "_", "-"), "-")
	if name := LanguageName(primary); regional && name != "" {
		return "", err.Try("leave out the region: %q (%s)", primary, name)
	}
	return "", err.Try(`use an ISO 639-1 code such as "en", or an English name such as "english"`)
}

// otherName is the code for names and codes that mean one of Whisper's
// languages and are not in its table; any other word is itself.
func otherName(word string) string {
	switch word {
	case "burmese":
		return "my"
	case "valencian":
		return "ca"
	case "flemish":
		return "nl"
	case "haitian":
		return "ht"
	case "letzeburgesch":
		return "lb"
	case "pushto":
		return "ps"
	case "panjabi":
		return "pa"
	case "moldavian", "moldovan":
		return "ro"
	case "sinhalese":
		return "si"
	case "castilian":
		return "es"
	case "mandarin":
		return "zh"
	case "farsi":
		return "fa"
	case "jv": // ISO's code for Javanese
		return "jw"
	case "iw": // ISO's former code for Hebrew
		return "he"
	case "nb", "bokmål", "bokmal":
		return "no"
	}
	return word
}
