# Draws panels of lines as SVG, both axes logarithmic, from lines
# SCALE COLUMN ROW TITLE LABEL WHO X Y, separated by tabs: a point of the line of WHO in
# the panel at COLUMN and ROW.  Panels with the same SCALE have the same vertical axis.
# LABEL is that of the horizontal axis, which is the same for all.

function log10(x) { return log(x) / log(10) }
function x_of(x) { return left + (log10(x) - x_low) / x_decades * width }
function y_of(value) { return top + height - (log10(value) - y_low) / y_decades * height }
function floor(x) { return int(x + 100) - 100 }
function text(x, y, anchor, what, more) {
	printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>%s</text>\n", x, y, anchor, more, what
}
function line(x1, y1, x2, y2, color) {
	printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, color
}

function panel(p,    i, d, who, points, last, y, n, ends, k, moved) {
	left = 60 + column_of[p] * (width + 160)
	top = 50 + row_of[p] * 320
	y_low = floor(log10(low[scale_of[p]]))
	y_decades = -floor(-log10(high[scale_of[p]] * 1.01)) - y_low
	text(left, top - 14, "start", title_of[p], "font-weight=\"bold\"")
	for (d = 0; d <= y_decades; d++) {
		y = top + height - d / y_decades * height
		line(left, y, left + width, y, "#dddddd")
		text(left - 8, y + 4, "end", 10 ^ (y_low + d))
	}
	for (i = 1; i <= xs; i++) {
		line(x_of(x_at[i]), top + height, x_of(x_at[i]), top + height + 5, "#666666")
		text(x_of(x_at[i]), top + height + 20, "middle", x_at[i])
	}
	text(left + width / 2, top + height + 38, "middle", label)
	for (k = 1; k <= ways; k++) {
		who = way[k]
		points = ""
		for (i = 1; i <= rows; i++) {
			if (row[i, "panel"] != p || row[i, "who"] != who)
				continue
			last = i
			points = points sprintf("%.1f,%.1f ", x_of(row[i, "x"]), y_of(row[i, "y"]))
			printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n",
				x_of(row[i, "x"]), y_of(row[i, "y"]), color[k]
		}
		if (points == "")
			continue
		printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", points, color[k]
		# Names must not lie on each other.
		y = y_of(row[last, "y"]) + 4
		do {
			moved = 0
			for (n in ends)
				if (y > ends[n] - 15 && y < ends[n] + 15) {
					y = ends[n] + 15
					moved = 1
				}
		} while (moved)
		ends[k] = y
		text(x_of(row[last, "x"]) + 9, y, "start", who, "fill=\"" color[k] "\"")
	}
}

BEGIN {
	FS = "\t"
	split("#d55e00 #0072b2 #009e73 #cc79a7 #e69f00 #56b4e9", color, " ")
	width = 320
	height = 220
}
{
	rows++
	p = $2 " " $3
	row[rows, "panel"] = p
	row[rows, "who"] = $6
	row[rows, "x"] = $7
	row[rows, "y"] = $8
	scale_of[p] = $1
	column_of[p] = $2
	row_of[p] = $3
	title_of[p] = $4
	label = $5
	if ($2 >= columns)
		columns = $2 + 1
	if ($3 >= lines)
		lines = $3 + 1
	if (!($1 in low) || $8 < low[$1])
		low[$1] = $8
	if (!($1 in high) || $8 > high[$1])
		high[$1] = $8
	if (!($6 in seen_way)) { seen_way[$6]; way[++ways] = $6 }
	if (!($7 in seen_x)) { seen_x[$7]; x_at[++xs] = $7 }
}
END {
	for (i = 1; i <= xs; i++) {
		x_min = i == 1 || x_at[i] < x_min ? x_at[i] : x_min
		x_max = i == 1 || x_at[i] > x_max ? x_at[i] : x_max
	}
	x_low = xs ? log10(x_min) : 0
	x_decades = x_max > x_min ? log10(x_max) - x_low : 1
	total = 60 + columns * (width + 160)
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" ",
		total, 20 + lines * 320, total, 20 + lines * 320
	print "font-family=\"sans-serif\" font-size=\"13\" fill=\"#333333\">"
	print "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
	for (p in title_of)
		panel(p)
	print "</svg>"
}
