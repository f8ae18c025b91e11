package score

import "testing"

func TestNormalize(t *testing.T) {
	tests := []struct{ language, in, want string }{
		{"en", "", ""},
		{"en", " ... -- !", ""},
		{"en", "Hello,   World!", "hello world"},
		{"en", "cold-hearted", "cold hearted"},
		{"en", "[Music] Hello (laughs) there [unclosed", "hello there unclosed"},
		{"en", "ﬁne Ｗｉｄｅ café", "fine wide cafe"},
		{"en", "What's John’s dogs' weather?", "what is johns dogs weather"},
		{"en", "I'm, you're, we've, she'll, he'd, it's, don't", "i am you are we have she will he would it is do not"},
		{"en", "can't cannot won't ain't let's gonna", "can not can not will not aint let us going to"},
		{"en", "o'clock 'tis rock 'n' roll", "oclock tis rock n roll"},
		{"en", "Um, Mister Smith, hmm, Missus Jones and Doctor Who", "mr smith mrs jones and dr who"},
		{"en", "$5 million, £1, 20% and €", "5000000 dollars 1 pound 20 percent and"},
		{"en", "1,000,000 and 3.14 and 7:30.", "1000000 and 3.14 and 7 30"},

		{"de", "Eure Schoko-Bonbons sind süß!", "eure schoko bonbons sind süß"},
		{"de", "Straße Nr. 5", "straße nr 5"},
		{"fr", "L’eau, c'est « bon »", "l eau c est bon"},
		{"pl", "ŻAŁOSNY żałosny", "żałosny żałosny"},
		{"hi", "हिन्दी।", "हिन्दी"},
		{"pt", "uma one two", "uma one two"},
		{"xx", "Any thing", "any thing"},

		{"zh", "广州市 房地产，（笑）２０２４年。", "广州市房地产2024年"},
		{"zh", "發展 发展", "發展发展"},
		{"ja", "「コーヒー」を、ｶﾞ 飲む！", "コーヒーをガ飲む"},
	}
	for _, tt := range tests {
		if got := Normalize(tt.language, tt.in); got != tt.want {
			t.Errorf("Normalize(%s, %q) = %q, want %q", tt.language, tt.in, got, tt.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	tests := []struct{ in, want string }{
		{"zero one nineteen ninety nine fifty", "0 1 1999 50"},
		{"twenty one", "21"},
		{"one two three", "1 2 3"},
		{"ten of clubs", "10 of clubs"},
		{"a hundred", "100"},
		{"a hundred and five men", "105 men"},
		{"one hundred and men", "100 and men"},
		{"one hundred two hundred", "100 200"},
		{"two thousand nineteen", "2019"},
		{"two thousand and one", "2001"},
		{"one thousand two thousand", "1000 2000"},
		{"three hundred twenty one thousand six hundred fifty four", "321654"},
		{"two million five thousand and six", "2005006"},
		{"twenty five hundred", "2500"},
		{"5 million and 20 thousand", "5020000"},
		{"99999 thousand", "99999 thousand"},
		{"eighteen thirteen", "1813"},
		{"nineteen eighty four", "1984"},
		{"nineteen oh five", "1905"},
		{"nineteen hundred", "1900"},
		{"twenty twenty five", "2025"},
		{"ten twenty thousand", "10 20000"},
		{"thirty forty", "30 40"},
		{"nineteen five", "19 5"},
		{"first second third fourth", "1st 2nd 3rd 4th"},
		{"eleventh twelfth thirteenth twentieth twenty first", "11th 12th 13th 20th 21st"},
		{"one hundred and eleventh", "111th"},
		{"one hundredth two thousandth five", "100th 2000th 5"},
		{"three point one four one", "3.141"},
		{"zero point oh five", "0.05"},
		{"the point one makes", "the point 1 makes"},
		{"one point", "1 point"},
		{"hundred thousand million", "hundred thousand million"},
		{"five and six", "5 and 6"},
		{"a man and a dog", "a man and a dog"},
		{"one hundred", "100"},
		{"one hundred and", "100 and"},
		{"two thousand and", "2000 and"},
		{"nineteen", "19"},
		{"nineteen oh", "19 oh"},
		{"a", "a"},
	}
	for _, tt := range tests {
		got := Normalize("en", tt.in)
		if got != tt.want {
			t.Errorf("%q became %q, want %q", tt.in, got, tt.want)
		}
		if again := Normalize("en", got); again != got {
			t.Errorf("%q became %q the second time", got, again)
		}
	}
}
