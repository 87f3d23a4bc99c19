package keys

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTextOfAKey(t *testing.T) {
	for _, c := range []struct {
		key  []byte
		want string
	}{
		{nil, "{}"},
		{AppendTablePrefix(nil, 42), "t42"},
		{AppendRowPrefix(nil, 42), "t42_r"},
		{Row(42, IntHandle(7)), "t42_r7"},
		{Row(42, IntHandle(-7)), "t42_r-7"},
		{Row(42, []byte{1, 2, 3}), "t42_r{010203}"},
		{AppendIndexPrefix(nil, 42, 3), "t42_i3"},
		{Index(42, 3, []byte{1, 0x80, 0xff}, nil), "t42_i3_{0180ff}"},
		{Meta("schema/1"), "m:schema/1"},
		{Meta("a\x00b"), "{6d610062}"},
		{[]byte{0xff, 0}, "{ff00}"},
		{[]byte("t1"), "{7431}"},
		{append(AppendTablePrefix(nil, 42), 'x'), "{748000000000" + "00002a78}"},
		{Next(Row(42, IntHandle(7))), "t42_r{800000000000000700}"},
	} {
		require.Equal(t, c.want, Text(c.key))
		back, err := Parse(c.want)
		require.NoError(t, err)
		require.True(t, bytes.Equal(c.key, back), "%s: %x", c.want, back)
	}
}

func TestParseReadsTheKeysOfShowRegions(t *testing.T) {
	for text, want := range map[string]string{
		"t_42_": "t42", "t_42_r": "t42_r", "t_42_r_7": "t42_r7", "t_42_r_-7": "t42_r-7",
		"t_42_i_3_0180ff": "t42_i3_{0180ff}", "t_42_i_3_": "t42_i3", "t_42_r_0180ff": "t42_r{0180ff}",
	} {
		key, err := Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, Text(key))
	}
}

func TestParseRefusesOtherTexts(t *testing.T) {
	for _, text := range []string{"", "42", "t", "tx", "t1_", "t1_x", "t1_rx", "t1_i", "t1_i2_", "t1_i2_x", "{f", "{xx}", "t1_r{", "x1", "t_", "t_x", "t_1_x_2", "t_1_i_x"} {
		_, err := Parse(text)
		require.ErrorIs(t, err, ErrNotText, text)
	}
}

func FuzzText(f *testing.F) {
	f.Add(Row(42, IntHandle(7)))
	f.Add(Index(1, 2, []byte("abc"), IntHandle(1)))
	f.Add(Meta("x"))
	f.Fuzz(func(t *testing.T, key []byte) {
		back, err := Parse(Text(key))
		if err != nil || !bytes.Equal(back, key) {
			t.Fatalf("%x became %s became %x (%v)", key, Text(key), back, err)
		}
	})
}
