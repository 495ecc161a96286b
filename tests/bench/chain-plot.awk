# Plots requests and time over depth, as SVG, from lines
# CHAIN WHO DEPTH REQUESTS SECONDS LATENCY, separated by tabs.  Both axes are
# logarithmic.

function log10(x) { return log(x) / log(10) }
function x_of(depth) { return left + log10(depth) / x_decades * width }
function y_of(value) { return top + height - (log10(value) - y_low) / y_decades * height }
function text(x, y, anchor, what, more) {
	printf "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" %s>%s</text>\n", x, y, anchor, more, what
}
function line(x1, y1, x2, y2, color) {
	printf "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, color
}

# One of the plots: a value of all ways over the depth, for one chain.
function panel(chain, value, title,    i, d, who, points, last, low, high, y, n, ends, k, moved) {
	# The same scale for all chains.
	low = 1e9
	high = 0
	for (i = 1; i <= rows; i++) {
		low = row[i, value] < low ? row[i, value] : low
		high = row[i, value] > high ? row[i, value] : high
	}
	y_low = int(log10(low) + 100) - 100
	y_decades = -int(-log10(high * 1.01) + 100) + 100 - y_low
	text(left, top - 14, "start", title, "font-weight=\"bold\"")
	for (d = 0; d <= y_decades; d++) {
		y = top + height - d / y_decades * height
		line(left, y, left + width, y, "#dddddd")
		text(left - 8, y + 4, "end", 10 ^ (y_low + d))
	}
	for (i = 1; i <= depths; i++) {
		line(x_of(depth[i]), top + height, x_of(depth[i]), top + height + 5, "#666666")
		text(x_of(depth[i]), top + height + 20, "middle", depth[i])
	}
	text(left + width / 2, top + height + 38, "middle", "depth of the chain")
	for (k = 1; k <= ways; k++) {
		who = way[k]
		points = ""
		for (i = 1; i <= rows; i++) {
			if (row[i, "chain"] != chain || row[i, "who"] != who)
				continue
			last = i
			points = points sprintf("%.1f,%.1f ", x_of(row[i, "depth"]), y_of(row[i, value]))
			printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n",
				x_of(row[i, "depth"]), y_of(row[i, value]), color[k]
		}
		if (points == "")
			continue
		printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"2\"/>\n", points, color[k]
		# Names must not lie on each other.
		y = y_of(row[last, value]) + 4
		do {
			moved = 0
			for (n in ends)
				if (y > ends[n] - 15 && y < ends[n] + 15) {
					y = ends[n] + 15
					moved = 1
				}
		} while (moved)
		ends[k] = y
		text(x_of(row[last, "depth"]) + 9, y, "start", who, "fill=\"" color[k] "\"")
	}
}

BEGIN {
	FS = "\t"
	split("#d55e00 #0072b2 #009e73", color, " ")
	width = 320
	height = 220
	x_decades = 0
}
{
	rows++
	row[rows, "chain"] = $1
	row[rows, "who"] = $2
	row[rows, "depth"] = $3
	row[rows, "requests"] = $4
	row[rows, "seconds"] = $5
	latency = $6
	if (!($1 in seen_chain)) { seen_chain[$1]; chain_of[++nr_chains] = $1 }
	if (!($2 in seen_way)) { seen_way[$2]; way[++ways] = $2 }
	if (!($3 in seen_depth)) { seen_depth[$3]; depth[++depths] = $3 }
	if (log10($3) > x_decades)
		x_decades = log10($3)
}
END {
	if (!x_decades)
		x_decades = 1
	total = 60 + nr_chains * (width + 160)
	printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d 660\" width=\"%d\" height=\"660\" ", total, total
	print "font-family=\"sans-serif\" font-size=\"13\" fill=\"#333333\">"
	print "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>"
	for (c = 1; c <= nr_chains; c++) {
		left = 60 + (c - 1) * (width + 160)
		top = 50
		panel(chain_of[c], "requests", "Chain “" chain_of[c] "”: requests until 4 KiB are read")
		top = 370
		panel(chain_of[c], "seconds", "Seconds, with " latency " ms added to each request")
	}
	print "</svg>"
}
