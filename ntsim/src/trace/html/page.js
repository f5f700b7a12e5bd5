'use strict';
// Draws the timeline that `ntsim::trace::html` put into #data. No library, no network.
const errors = [];
addEventListener('error', event => errors.push(String(event.message)));
addEventListener('unhandledrejection', event => errors.push(String(event.reason)));

const timeline = (() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const $ = id => document.getElementById(id);
  const texts = data.texts, lines = data.lines, count = lines.length;
  // Fields of a line and of a bar.
  const TIME = 0, LANE = 1, IRQL = 2, EVENT = 4, TEXT = 5, CONTEXT = 6;
  const KIND = 0, NAME = 1, FIRST = 2, LAST = 3, DEPTH = 4, OPEN = 5;
  const CALL = 0, CALLBACK = 1, WAIT = 2, STATE = 3;
  const EVENTS = ['call', 'enter', 'callback', 'return', 'print', 'machine', 'device'];
  const PAD = 5, RULER = 22, LABELS = 168, LIST_ROW = 18;
  let ROW = 15;

  // ---- scales ---------------------------------------------------------------

  // Where each line begins, and behind the last one the end.
  const time = Float64Array.from(data.places);
  const steps = new Float64Array(count + 1);
  // In steps, where time goes by: the line after it.
  const breaks = [];
  for (let at = 1, x = 0; at <= count; at++) {
    x += 1;
    const passed = at < count ? lines[at][TIME] - lines[at - 1][TIME]
      : data.stop ? Math.max(0, data.stop.time - lines[at - 1][TIME]) : 0;
    if (passed > 0) {
      breaks.push(at);
      x += 1.5 + 0.7 * Math.log10(passed);
    }
    steps[at] = x;
  }
  // Room for what begins with the last line and has not ended.
  steps[count] += 1;
  let scale = 'steps', place = steps;
  // A line is one step or one nanosecond wide.
  const begin = line => place[line];
  const end = line => line < count ? place[line] + 1 : place[count];
  const left = bar => bar[KIND] === WAIT ? end(bar[FIRST]) : begin(bar[FIRST]);
  const right = bar => bar[KIND] === WAIT ? begin(bar[LAST]) : end(bar[LAST]);
  const total = () => Math.max(place[count], 1);

  let width = 0, height = 0;

  // ---- lanes ----------------------------------------------------------------

  const lanes = data.lanes.map((lane, index) => ({
    ...lane, index, rows: [], waits: [], own: [], irqls: [], folded: false, top: 0, height: 0,
  }));
  lines.forEach((line, at) => lanes[line[LANE]].own.push(at));
  for (const lane of lanes) {
    for (const bar of lane.bars) {
      bar.lane = lane;
      // A wait is drawn over the call that it is in.
      const rows = bar[KIND] === WAIT ? lane.waits : lane.rows;
      const row = bar[KIND] === WAIT ? bar[DEPTH] - 1 : bar[DEPTH];
      (rows[row] ??= []).push(bar);
    }
    for (let row = 0; row < lane.waits.length; row++) lane.waits[row] ??= [];
    for (let row = 0; row < lane.rows.length; row++) lane.rows[row] ??= [];
    // Where the IRQL is raised: to the context's next line, or one line long.
    lane.own.forEach((at, index) => {
      const irql = lines[at][IRQL], next = lane.own[index + 1];
      if (!irql) return;
      const same = next !== undefined && lines[next][CONTEXT] === lines[at][CONTEXT];
      const to = same ? next : at + 1, before = lane.irqls.at(-1);
      if (before && before[1] === at && before[2] === irql) before[1] = to; else lane.irqls.push([at, to, irql]);
    });
  }
  const barsOfLine = at => {
    const found = [];
    for (const bar of lanes[lines[at][LANE]].bars) {
      if (bar[FIRST] > at) break;
      if (bar[KIND] !== WAIT && (bar[FIRST] === at || bar[LAST] === at)) found.push(bar);
    }
    return found.at(-1);
  };
  const layout = () => {
    const rowsOf = lane => lane.folded ? 1 : Math.max(1, lane.rows.length);
    // Higher where there is room.
    const room = (height - RULER - lanes.length * PAD) / lanes.reduce((sum, lane) => sum + rowsOf(lane), 0);
    ROW = Math.floor(Math.min(21, Math.max(15, room)));
    let top = 0;
    for (const lane of lanes) {
      const rows = rowsOf(lane);
      lane.top = top;
      lane.height = rows * ROW + PAD;
      top += lane.height;
    }
    return top;
  };
  let contentHeight = 0;

  // ---- state ----------------------------------------------------------------

  const view = { from: 0, to: 1, top: 0 };
  const shown = [true, true, true, true];
  let selected = -1, selectedBar = null, hovered = null;
  let query = '', matches = [], isMatch = null, only = false;
  let colours = {};
  const canvas = $('canvas'), overview = $('overview'), list = $('list'), rowsBox = $('rows');
  const pen = canvas.getContext('2d'), small = overview.getContext('2d');

  const readColours = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of ['back', 'panel', 'line', 'text', 'faint', 'call', 'call-text', 'callback', 'callback-text',
      'dpc', 'wait', 'wait-line', 'stop', 'select', 'd0', 'dx', 'other', 'failed', 'band', 'irql1', 'irql2', 'irql3', 'hit']) {
      colours[name] = style.getPropertyValue('--' + name).trim();
    }
    const tile = document.createElement('canvas');
    tile.width = tile.height = 6;
    const tilePen = tile.getContext('2d');
    tilePen.fillStyle = colours.wait;
    tilePen.fillRect(0, 0, 6, 6);
    tilePen.strokeStyle = colours['wait-line'];
    tilePen.beginPath();
    for (const at of [-6, 0, 6]) { tilePen.moveTo(at, 6); tilePen.lineTo(at + 6, 0); }
    tilePen.stroke();
    colours.hatch = pen.createPattern(tile, 'repeat');
  };

  // ---- words ----------------------------------------------------------------

  const seconds = units => (units / 1e7).toFixed(7).replace(/0{1,4}$/, '');
  const span = units => {
    const trim = (value, unit) => Number(value.toPrecision(4)) + ' ' + unit;
    if (units >= 1e7) return trim(units / 1e7, 's');
    if (units >= 1e4) return trim(units / 1e4, 'ms');
    if (units >= 10) return trim(units / 10, 'µs');
    return units * 100 + ' ns';
  };
  const timeAt = at => at < count ? lines[at][TIME] : data.stop ? data.stop.time : count ? lines[count - 1][TIME] : 0;
  const duration = bar => Math.max(0, timeAt(bar[LAST]) - timeAt(bar[FIRST]));
  const text = at => texts[lines[at][TEXT]];
  const describe = bar => {
    const name = texts[bar[NAME]];
    const lasted = bar[OPEN] ? `not ended after ${span(duration(bar))}` : span(duration(bar));
    if (bar[KIND] === WAIT) return `waits in ${text(bar[FIRST]).replace(/ \.\.\.$/, '')}\n${lasted}`;
    if (bar[KIND] === STATE) return `${bar.lane.name}: ${name}\n${lasted}`;
    const close = bar[LAST] < count && bar[LAST] !== bar[FIRST] ? text(bar[LAST]) : '';
    const result = close.includes(' = ') ? close.slice(close.indexOf(' = ')) : '';
    const call = text(bar[FIRST]).replace(/ \.\.\.$/, '').replace(/^-> /, '');
    return `${call}${result}\n${lasted}, IRQL ${lines[bar[FIRST]][IRQL]}, step ${bar[FIRST]}`;
  };

  // ---- drawing --------------------------------------------------------------

  const x = value => LABELS + (value - view.from) / (view.to - view.from) * (width - LABELS);
  const value = px => view.from + (px - LABELS) / (width - LABELS) * (view.to - view.from);
  // The first of sorted bars that ends behind a place.
  const firstBehind = (bars, from, to = right) => {
    let low = 0, high = bars.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (to(bars[middle]) <= from) low = middle + 1; else high = middle;
    }
    return low;
  };
  // The last line that begins at a place or before it.
  const lineAt = at => {
    let low = 0, high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (place[middle] <= at) low = middle + 1; else high = middle;
    }
    return Math.min(count - 1, Math.max(0, low - 1));
  };
  let drawn = 0;
  // Calls `draw(bar, x, width)` for what is in sight, and once for what falls on one pixel.
  const each = (bars, draw, from = left, to = right) => {
    const pixel = (view.to - view.from) / (width - LABELS);
    for (let at = firstBehind(bars, view.from, to); at < bars.length;) {
      const bar = bars[at], l = from(bar), r = to(bar);
      if (l > view.to) break;
      const px = Math.max(LABELS, x(l)), pr = Math.min(width, x(r));
      draw(bar, px, Math.max(1, pr - px));
      drawn++;
      if (r - l < pixel) {
        // On to what ends behind this pixel.
        const next = firstBehind(bars, l + pixel, to);
        at = Math.max(next, at + 1);
      } else at++;
    }
  };
  const label = (words, px, py, room, colour) => {
    const wide = pen.measureText(words).width;
    const letters = Math.floor(words.length * Math.min(1, (room - 8) / wide));
    if (letters < Math.min(3, words.length)) return 0;
    pen.fillStyle = colour;
    pen.fillText(letters < words.length ? words.slice(0, letters - 1) + '…' : words, px + 3, py);
    return Math.min(room, wide + 8);
  };
  const dimmed = bar => isMatch && bar[KIND] !== STATE && !isMatch[bar[FIRST]];
  const fill = bar => {
    if (bar[KIND] === CALLBACK) return bar.lane.kind === 'dpc' ? colours.dpc : colours.callback;
    if (bar[KIND] === STATE) return colours[{ D0: 'd0', Dx: 'dx', failed: 'failed' }[texts[bar[NAME]]] || 'other'];
    return colours.call;
  };
  const paintLane = (lane, top) => {
    const rows = lane.folded ? lane.rows.slice(0, 1) : lane.rows;
    rows.forEach((bars, row) => {
      const y = top + 2 + row * ROW;
      each(bars, (bar, px, w) => {
        if (!shown[bar[KIND]]) return;
        pen.globalAlpha = dimmed(bar) ? 0.22 : 1;
        pen.fillStyle = fill(bar);
        // A gap of a hair between neighbours.
        pen.fillRect(px, y, w > 3 ? w - 0.5 : w, ROW - 1.5);
        if (w > 24) {
          const colour = bar[KIND] === CALL ? colours['call-text'] : colours['callback-text'];
          label(texts[bar[NAME]], px, y + ROW / 2, w, colour);
        }
      });
      const waits = lane.waits[row];
      if (shown[WAIT] && waits) each(waits, (bar, px, w) => {
        pen.globalAlpha = dimmed(bar) ? 0.22 : 1;
        pen.fillStyle = colours.hatch;
        pen.fillRect(px, y + 2.5, w, ROW - 6.5);
      });
    });
    pen.globalAlpha = 1;
    const bottom = top + lane.height;
    each(lane.irqls, ([, , irql], px, w) => {
      pen.fillStyle = colours[irql >= 3 ? 'irql3' : 'irql' + irql];
      pen.fillRect(px, bottom - 3, w, 2);
    }, segment => begin(segment[0]), segment => begin(segment[1]));
    const rowsHigh = lane.kind === 'machine' ? ROW : lane.height - PAD;
    let free = 0;
    each(lane.marks, (at, px) => {
      const isPrint = EVENTS[lines[at][EVENT]] === 'print';
      pen.globalAlpha = isMatch && !isMatch[at] ? 0.22 : 1;
      pen.fillStyle = isPrint ? colours.dpc : colours.text;
      const y = top + 2 + (isPrint ? Math.max(0, rowsHigh - ROW) : 0) + ROW / 2;
      pen.beginPath();
      const r = isPrint ? 3 : 4;
      pen.moveTo(px, y - r); pen.lineTo(px + r, y); pen.lineTo(px, y + r); pen.lineTo(px - r, y);
      pen.fill();
      if (lane.kind === 'machine' && px > free) {
        // Which device it is, the pointer tells.
        const words = text(at).replace(/^\*\* (the |device \S+ (is )?)?/, '');
        const next = lane.marks[firstBehind(lane.marks, end(at), it => end(it))];
        const room = Math.min(width, next === undefined ? width : x(begin(next))) - px - 8;
        if (room > 24) free = px + label(words, px + 3, y, room, colours.text);
      }
    }, at => begin(at), at => end(at));
    pen.globalAlpha = 1;
  };
  const paintRuler = () => {
    pen.fillStyle = colours.panel;
    pen.fillRect(0, 0, width, RULER);
    pen.fillStyle = colours.line;
    pen.fillRect(0, RULER - 1, width, 1);
    pen.fillStyle = colours.faint;
    pen.textAlign = 'left';
    const tick = (px, words) => {
      pen.fillStyle = colours.line;
      pen.fillRect(px, RULER - 6, 1, 6);
      pen.fillStyle = colours.faint;
      pen.fillText(words, px + 3, RULER / 2);
    };
    const room = 116;
    if (scale === 'time') {
      const wanted = (view.to - view.from) / (width - LABELS) * room;
      const power = 10 ** Math.floor(Math.log10(wanted));
      const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= wanted);
      for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
        const digits = Math.min(9, Math.max(0, 9 - Math.floor(Math.log10(step))));
        tick(x(at), (at / 1e9).toFixed(digits) + ' s');
      }
    } else if (count) {
      let free = LABELS - 1;
      for (let at = lineAt(view.from); at < count && x(begin(at)) < width;) {
        const px = x(begin(at));
        if (px > free) { tick(px, seconds(lines[at][TIME]) + ' s'); free = px + room; }
        at = Math.max(at + 1, lineAt(value(free)) + (value(free) > begin(lineAt(value(free))) ? 1 : 0));
      }
    }
  };
  const paintBreaks = () => {
    if (scale !== 'steps') return;
    const bars = breaks.map(at => [at, end(at - 1), begin(at)]);
    each(bars, ([at], px, w) => {
      pen.fillStyle = colours.band;
      pen.fillRect(px, RULER, w, height - RULER);
      const words = '+' + span(timeAt(at) - timeAt(at - 1));
      if (w > 20 && pen.measureText(words).width < w + 14) {
        pen.fillStyle = colours.faint;
        pen.textAlign = 'center';
        pen.fillText(words, px + w / 2, height - 9);
        pen.textAlign = 'left';
      }
    }, bar => bar[1], bar => bar[2]);
  };
  const paint = () => {
    drawn = 0;
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.textBaseline = 'middle';
    pen.textAlign = 'left';
    pen.font = '11px system-ui, "Segoe UI", Roboto, sans-serif';
    pen.fillStyle = colours.back;
    pen.fillRect(0, 0, width, height);
    paintBreaks();
    pen.save();
    pen.beginPath();
    pen.rect(LABELS, RULER, width - LABELS, height - RULER);
    pen.clip();
    for (const lane of lanes) {
      const top = RULER + lane.top - view.top;
      if (top + lane.height < RULER || top > height) continue;
      paintLane(lane, top);
      pen.fillStyle = colours.line;
      pen.fillRect(LABELS, top + lane.height - 0.5, width, 0.5);
    }
    if (selected >= 0) {
      pen.fillStyle = colours.select;
      pen.globalAlpha = 0.7;
      pen.fillRect(x(begin(selected)), RULER, 1, height);
      pen.globalAlpha = 1;
    }
    const frame = (bar, colour) => {
      if (!bar) return;
      const rect = place2(bar);
      pen.strokeStyle = colour;
      pen.lineWidth = 1.5;
      pen.strokeRect(rect.x - 0.5, rect.y - 0.5, rect.w + 1, rect.h + 1);
    };
    frame(hovered, colours.text);
    frame(selectedBar, colours.select);
    if (data.stop) {
      const px = x(total());
      pen.fillStyle = colours.stop;
      pen.fillRect(px - 2, RULER, 2, height);
    }
    pen.restore();
    paintRuler();
    // The names, over what is drawn.
    pen.fillStyle = colours.panel;
    pen.fillRect(0, 0, LABELS - 1, height);
    pen.fillStyle = colours.line;
    pen.fillRect(LABELS - 1, 0, 1, height);
    pen.fillRect(0, RULER - 1, LABELS, 1);
    pen.save();
    pen.beginPath();
    pen.rect(0, RULER, LABELS - 4, height - RULER);
    pen.clip();
    for (const lane of lanes) {
      const top = RULER + lane.top - view.top;
      pen.fillStyle = colours.line;
      pen.fillRect(0, top + lane.height - 0.5, LABELS, 0.5);
      pen.fillStyle = lane.kind === 'dpc' ? colours.dpc : lane.kind === 'device' ? colours.d0 : lane.kind === 'thread' ? colours.callback : colours.faint;
      pen.fillRect(0, top, 3, lane.height - 1);
      pen.fillStyle = colours.text;
      pen.font = '600 11px system-ui, "Segoe UI", Roboto, sans-serif';
      const fold = lane.rows.length > 1 ? (lane.folded ? '▸ ' : '▾ ') : '   ';
      pen.fillText(fold + lane.name, 8, top + 2 + ROW / 2);
      pen.font = '11px system-ui, "Segoe UI", Roboto, sans-serif';
      if (lane.rows.length > 1 && !lane.folded) {
        pen.fillStyle = colours.faint;
        const calls = lane.bars.length;
        pen.fillText(`${lane.kind === 'dpc' ? 'DPC, ' : ''}${calls} bars`, 20, top + 2 + ROW * 1.5);
      }
    }
    pen.restore();
    pen.fillStyle = colours.faint;
    pen.fillText(scale === 'steps' ? 'steps' : 'virtual time', 8, RULER / 2);
    paintOverview();
    const room = height - RULER, thumb = $('thumb');
    thumb.hidden = contentHeight <= room;
    thumb.style.height = Math.max(20, room * room / contentHeight) + 'px';
    thumb.style.top = view.top / contentHeight * room + 'px';
  };
  // Where a bar is on the canvas.
  const place2 = bar => {
    const row = bar[KIND] === WAIT ? bar[DEPTH] - 1 : bar[DEPTH];
    const l = Math.max(LABELS, x(left(bar))), r = Math.min(width, x(right(bar)));
    return { x: l, y: RULER + bar.lane.top - view.top + 2 + row * ROW, w: Math.max(1, r - l), h: ROW - 1.5 };
  };
  let density = null;
  const paintOverview = () => {
    const w = overview.clientWidth, h = overview.clientHeight;
    small.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    small.fillStyle = colours.panel;
    small.fillRect(0, 0, w, h);
    const columns = Math.max(1, w - LABELS);
    if (!density || density.key !== scale + columns) {
      const lanesHere = lanes.length, cells = new Uint8Array(columns * lanesHere);
      const column = at => Math.min(columns - 1, Math.floor(at / total() * columns));
      for (const lane of lanes) {
        for (const bar of lane.bars) {
          const mark = bar[KIND] + 1;
          for (let c = column(left(bar)), to = column(right(bar)); c <= to; c++) {
            const cell = c * lanesHere + lane.index;
            // A callback hides a wait hides a call.
            const rank = [0, 1, 3, 2, 4];
            if (rank[cells[cell]] < rank[mark]) cells[cell] = mark;
          }
        }
        for (const at of lane.marks) {
          const cell = column(begin(at)) * lanesHere + lane.index;
          if (!cells[cell]) cells[cell] = 5;
        }
      }
      density = { key: scale + columns, cells, lanes: lanesHere };
    }
    const band = (h - 8) / density.lanes;
    for (let c = 0; c < columns; c++) {
      for (const lane of lanes) {
        const mark = density.cells[c * density.lanes + lane.index];
        if (!mark) continue;
        small.fillStyle = [null, colours.call, lane.kind === 'dpc' ? colours.dpc : colours.callback, colours.wait, colours.d0, colours.faint][mark];
        small.fillRect(LABELS + c, 4 + lane.index * band, 1, Math.max(1, band - 0.5));
      }
    }
    const l = LABELS + view.from / total() * columns, r = LABELS + view.to / total() * columns;
    small.fillStyle = colours.back;
    small.globalAlpha = 0.6;
    small.fillRect(LABELS, 0, l - LABELS, h);
    small.fillRect(r, 0, w - r, h);
    small.globalAlpha = 1;
    small.strokeStyle = colours.select;
    small.strokeRect(l + 0.5, 0.5, Math.max(2, r - l - 1), h - 2);
    if (data.stop) { small.fillStyle = colours.stop; small.fillRect(w - 2, 0, 2, h); }
    small.fillStyle = colours.faint;
    small.font = '11px system-ui, "Segoe UI", Roboto, sans-serif';
    small.textBaseline = 'middle';
    small.fillText('overview', 8, h / 2);
  };
  let due = false;
  const redraw = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; paint(); });
  };
  const resize = () => {
    for (const [element, drawing] of [[canvas, true], [overview, false]]) {
      const box = element.getBoundingClientRect();
      element.width = Math.round(box.width * devicePixelRatio);
      element.height = Math.round(box.height * devicePixelRatio);
      if (drawing) { width = box.width; height = box.height; }
    }
    contentHeight = layout();
    setTop(view.top);
    paint();
    showRows();
  };

  // ---- moving ---------------------------------------------------------------

  const look = (from, to) => {
    const all = total(), margin = all * 0.01;
    // Not closer than a few lines, or nanoseconds, nor farther than everything.
    const wide = Math.min(Math.max(to - from, 4), all + 2 * margin);
    const at = Math.min(Math.max((from + to - wide) / 2, -margin), all + margin - wide);
    view.from = at;
    view.to = at + wide;
    redraw();
  };
  const fit = () => look(-total() * 0.01, total() * 1.01);
  const zoom = (factor, px = (LABELS + width) / 2) => {
    const at = value(px);
    look(at - (at - view.from) * factor, at + (view.to - at) * factor);
  };
  const pan = share => look(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);
  const setTop = top => {
    view.top = Math.max(0, Math.min(top, contentHeight - (height - RULER)));
    redraw();
  };
  const setScale = name => {
    if (name !== scale) {
      const first = lineAt(Math.max(0, view.from)), last = lineAt(Math.min(total(), view.to));
      const whole = view.from <= 0 && view.to >= total();
      scale = name;
      place = name === 'steps' ? steps : time;
      if (whole) fit(); else look(begin(first), end(last));
    }
    $('steps').setAttribute('aria-pressed', scale === 'steps');
    $('time').setAttribute('aria-pressed', scale === 'time');
    redraw();
  };
  const focus = bar => {
    const l = left(bar), r = right(bar), margin = Math.max((r - l) * 0.15, 2);
    look(l - margin, r + margin);
  };
  // Moves so far that a line can be seen.
  const reveal = at => {
    const l = begin(at), wide = view.to - view.from;
    if (l < view.from + wide * 0.05 || l > view.to - wide * 0.05) look(l - wide / 2, l + wide / 2);
    const lane = lanes[lines[at][LANE]];
    if (lane.top < view.top || lane.top + lane.height > view.top + height - RULER) {
      setTop(lane.top - (height - RULER) / 2 + lane.height / 2);
    }
  };

  // ---- the list -------------------------------------------------------------

  const listed = () => only && isMatch ? matches : null;
  const listLength = () => listed() ? matches.length : count;
  const lineOfRow = row => listed() ? matches[row] : row;
  const rowOfLine = at => {
    const some = listed();
    if (!some) return at;
    let low = 0, high = some.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (some[middle] < at) low = middle + 1; else high = middle;
    }
    return low;
  };
  // Browsers end at some 30 million pixels; a trace that long scrolls in leaps.
  const rowHeight = () => Math.min(LIST_ROW, 2e7 / Math.max(1, listLength()));
  const showRows = () => {
    const high = rowHeight(), length = listLength();
    rowsBox.style.height = length * high + 'px';
    const first = Math.max(0, Math.min(Math.floor(list.scrollTop / high), length - 1));
    const some = Math.ceil(list.clientHeight / LIST_ROW) + 1;
    const parts = [];
    for (let row = first; row < Math.min(length, first + some); row++) {
      const at = lineOfRow(row), line = lines[at];
      const element = document.createElement('div');
      element.className = 'row ' + EVENTS[line[EVENT]] + (at === selected ? ' selected' : '') + (isMatch && isMatch[at] ? ' match' : '');
      element.style.cssText = `position:absolute;left:0;right:0;top:${first * high + (row - first) * LIST_ROW}px`;
      element.dataset.line = at;
      const cell = (kind, words) => {
        const span = document.createElement('span');
        span.className = kind;
        span.textContent = words;
        element.append(span);
      };
      cell('when', (line[TIME] / 1e7).toFixed(7));
      cell('who', lanes[line[LANE]].name);
      cell('irql', String(line[IRQL]));
      cell('what', '  '.repeat(Math.min(line[3], 40)) + text(at));
      parts.push(element);
    }
    rowsBox.replaceChildren(...parts);
  };
  const scrollTo = at => {
    const high = rowHeight(), row = rowOfLine(at), top = row * high;
    if (top < list.scrollTop || top + LIST_ROW > list.scrollTop + list.clientHeight) {
      list.scrollTop = top - list.clientHeight / 2;
    }
    showRows();
  };

  // ---- selecting and searching ----------------------------------------------

  const showDetails = () => {
    const box = $('details');
    box.replaceChildren();
    const heading = words => { const h = document.createElement('h2'); h.textContent = words; box.append(h); };
    const facts = pairs => {
      const dl = document.createElement('dl');
      for (const [name, words] of pairs) {
        if (words === '' || words === undefined) continue;
        const dt = document.createElement('dt'), dd = document.createElement('dd');
        dt.textContent = name;
        dd.textContent = words;
        dl.append(dt, dd);
      }
      box.append(dl);
    };
    const block = words => { const pre = document.createElement('pre'); pre.textContent = words; box.append(pre); };
    const bar = selectedBar;
    if (bar) {
      heading((bar[KIND] === WAIT ? 'waits in ' : '') + texts[bar[NAME]]);
      const call = text(bar[FIRST]), args = call.slice(call.indexOf('(') + 1, call.lastIndexOf(')'));
      const close = bar[LAST] < count ? text(bar[LAST]) : '';
      facts([
        ['lane', bar.lane.name],
        ['from', `${seconds(timeAt(bar[FIRST]))} s, step ${bar[FIRST]}`],
        ['to', bar[OPEN] ? 'not ended' : `${seconds(timeAt(bar[LAST]))} s, step ${bar[LAST]}`],
        ['took', span(duration(bar))],
        ['IRQL', String(lines[bar[FIRST]][IRQL])],
        ...(bar[KIND] === STATE ? [] : args.split(/, (?=[A-Za-z]+=)/).filter(Boolean).map(arg => {
          const at = arg.indexOf('=');
          return [arg.slice(0, at), arg.slice(at + 1)];
        })),
        ['result', close.includes(' = ') ? close.slice(close.indexOf(' = ') + 3) : ''],
      ]);
    } else if (selected >= 0) {
      heading(text(selected));
      facts([['lane', lanes[lines[selected][LANE]].name], ['at', `${seconds(lines[selected][TIME])} s, step ${selected}`],
        ['IRQL', String(lines[selected][IRQL])]]);
    } else if (data.stop) {
      const report = data.stop.report || {};
      heading(data.stop.name);
      block(data.stop.message);
      facts([['rule', report.rule && report.rule.name], ['at', seconds(data.stop.time) + ' s'], ['in', report.context],
        ['IRQL', report.irql === undefined ? '' : String(report.irql)], ['replay', report.replay],
        ...(report.parameters || []).map((it, index) => [`parameter ${index + 1}`, `${it.value}  ${it.meaning}`])]);
      const frame = it => `${it.module ? it.module + '!' : ''}${it.function}${it.file ? `\n    ${it.file}:${it.line}` : ''}`;
      if ((report.backtrace || []).length) block('backtrace\n' + report.backtrace.map(frame).join('\n'));
      for (const it of report.contexts || []) {
        const waits = it.wait ? ' waits for ' + (it.wait.objects.map(object => object.name + (object.held_by.length ? ` (held by ${object.held_by.join(', ')})` : '')).join(it.wait.all ? ' and ' : ' or ') || 'time or the framework') : ` is ${it.state}`;
        block(`${it.name}${waits}${it.calls.length ? '\n    in ' + it.calls.at(-1) : ''}`);
      }
    } else {
      heading(data.title || 'trace');
      facts([['seed', data.seed], ['strategy', data.strategy], ['lines', String(count)], ['virtual time', seconds(timeAt(count)) + ' s']]);
    }
  };
  const select = (at, bar = null) => {
    selected = at;
    selectedBar = at >= 0 ? bar || barsOfLine(at) || null : null;
    if (at >= 0) scrollTo(at); else showRows();
    showDetails();
    redraw();
  };
  const search = words => {
    query = words.trim().toLowerCase();
    matches = [];
    isMatch = null;
    if (query) {
      isMatch = new Uint8Array(count);
      const hit = texts.map(it => it.toLowerCase().includes(query));
      const who = lanes.map(lane => lane.name.toLowerCase().includes(query));
      for (let at = 0; at < count; at++) {
        if (hit[lines[at][TEXT]] || who[lines[at][LANE]]) { matches.push(at); isMatch[at] = 1; }
      }
    }
    $('found').textContent = query ? `${matches.length} lines` : '';
    list.scrollTop = 0;
    showRows();
    redraw();
  };
  const go = direction => {
    if (!matches.length) return;
    const at = direction > 0 ? matches.find(it => it > selected) ?? matches[0]
      : matches.findLast(it => it < selected) ?? matches.at(-1);
    select(at);
    reveal(at);
  };
  // The bar or mark at a point of the canvas.
  const hit = (px, py) => {
    if (px < LABELS || py < RULER) return null;
    const lane = lanes.find(it => py >= RULER + it.top - view.top && py < RULER + it.top + it.height - view.top);
    if (!lane) return null;
    const at = value(px), near = (view.to - view.from) / (width - LABELS) * 5;
    const closest = lane.marks[firstBehind(lane.marks, at - near, it => begin(it))];
    const row = Math.floor((py - RULER - lane.top + view.top - 2) / ROW);
    if (lane.folded && row > 0) return null;
    for (const [kind, bars] of [[WAIT, lane.waits[row]], [CALL, lane.rows[row]]]) {
      if (!bars || (kind === WAIT && !shown[WAIT])) continue;
      const pixel = (view.to - view.from) / (width - LABELS);
      const bar = bars[firstBehind(bars, at - pixel)];
      if (bar && shown[bar[KIND]] && left(bar) <= at + pixel * 0.5) return { bar };
    }
    if (closest !== undefined && Math.abs(begin(closest) - at) <= near) return { mark: closest };
    return null;
  };

  // ---- hands ----------------------------------------------------------------

  let drag = null;
  const point = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  canvas.addEventListener('wheel', event => {
    event.preventDefault();
    const [px] = point(event);
    const by = event.deltaMode === 1 ? 30 : 1;
    if (px < LABELS) setTop(view.top + event.deltaY * by);
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      pan((event.deltaX || event.deltaY) * by / (width - LABELS));
    } else zoom(Math.exp(event.deltaY * by * 0.0018), px);
  }, { passive: false });
  canvas.addEventListener('pointerdown', event => {
    const [px, py] = point(event);
    drag = { px, py, from: view.from, to: view.to, top: view.top, moved: false };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener('pointermove', event => {
    const [px, py] = point(event);
    if (drag) {
      if (Math.abs(px - drag.px) + Math.abs(py - drag.py) > 3) drag.moved = true;
      if (drag.moved && drag.px >= LABELS) {
        const by = (drag.px - px) / (width - LABELS) * (drag.to - drag.from);
        look(drag.from + by, drag.to + by);
      }
      if (drag.moved) setTop(drag.top + drag.py - py);
      return;
    }
    const found = hit(px, py);
    hovered = found && found.bar || null;
    canvas.style.cursor = found || px < LABELS ? 'pointer' : 'default';
    const tip = $('tip');
    tip.hidden = !found;
    if (found) {
      tip.textContent = found.bar ? describe(found.bar) : text(found.mark).replace(/^\*\* /, '');
      tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + 'px';
      const below = event.clientY + 18;
      tip.style.top = (below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : below) + 'px';
    }
    redraw();
  });
  canvas.addEventListener('pointerleave', () => { $('tip').hidden = true; hovered = null; redraw(); });
  canvas.addEventListener('pointerup', event => {
    const [px, py] = point(event), was = drag;
    drag = null;
    if (!was || was.moved) return;
    if (px < LABELS) {
      const lane = lanes.find(it => py >= RULER + it.top - view.top && py < RULER + it.top + it.height - view.top);
      if (lane) { lane.folded = !lane.folded; contentHeight = layout(); setTop(view.top); }
      return;
    }
    const found = hit(px, py);
    if (!found) select(-1); else if (found.bar) select(found.bar[FIRST], found.bar); else select(found.mark);
  });
  canvas.addEventListener('dblclick', event => { const found = hit(...point(event)); if (found && found.bar) focus(found.bar); });
  const follow = (element, move) => {
    element.addEventListener('pointerdown', event => {
      element.setPointerCapture(event.pointerId);
      element.onpointermove = move;
      move(event);
    });
    element.addEventListener('pointerup', () => { element.onpointermove = null; });
  };
  follow(overview, event => {
    const at = (event.clientX - LABELS) / (overview.clientWidth - LABELS) * total(), half = (view.to - view.from) / 2;
    look(at - half, at + half);
  });
  overview.addEventListener('wheel', event => { event.preventDefault(); zoom(Math.exp(event.deltaY * 0.0018)); }, { passive: false });
  follow($('split'), event => {
    const box = document.querySelector('main').getBoundingClientRect();
    $('below').style.height = Math.max(40, Math.min(box.height - 90, box.bottom - event.clientY)) + 'px';
    resize();
  });
  follow($('thumb'), event => setTop((event.clientY - $('bar').getBoundingClientRect().top - $('thumb').offsetHeight / 2) / (height - RULER) * contentHeight));
  list.addEventListener('scroll', showRows);
  list.addEventListener('click', event => {
    const row = event.target.closest('.row');
    if (row) { select(Number(row.dataset.line)); reveal(selected); }
  });
  list.addEventListener('dblclick', () => { if (selectedBar) focus(selectedBar); });
  $('search').addEventListener('input', event => search(event.target.value));
  $('search').addEventListener('keydown', event => {
    if (event.key === 'Enter') go(event.shiftKey ? -1 : 1);
    if (event.key === 'Escape') { event.target.value = ''; search(''); canvas.focus(); }
    event.stopPropagation();
  });
  $('next').onclick = () => go(1);
  $('previous').onclick = () => go(-1);
  $('only').onclick = () => { only = !only; $('only').setAttribute('aria-pressed', only); list.scrollTop = 0; showRows(); };
  $('steps').onclick = () => setScale('steps');
  $('time').onclick = () => setScale('time');
  $('in').onclick = () => zoom(0.5);
  $('out').onclick = () => zoom(2);
  $('fit').onclick = fit;
  $('keys').onclick = () => $('help').showModal();
  for (const button of document.querySelectorAll('.kind')) {
    button.onclick = () => {
      const kind = Number(button.dataset.kind);
      shown[kind] = !shown[kind];
      button.setAttribute('aria-pressed', shown[kind]);
      redraw();
    };
  }
  const setTheme = name => {
    document.documentElement.dataset.theme = name;
    readColours();
    redraw();
  };
  $('theme').onclick = () => setTheme(document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark');
  addEventListener('keydown', event => {
    if (event.ctrlKey || event.metaKey || event.altKey || $('help').open) return;
    const step = by => {
      const row = Math.min(listLength() - 1, Math.max(0, (selected < 0 ? -1 : rowOfLine(selected)) + by));
      if (listLength()) { select(lineOfRow(row)); reveal(selected); }
    };
    const does = {
      ArrowLeft: () => pan(-0.2), a: () => pan(-0.2), ArrowRight: () => pan(0.2), d: () => pan(0.2),
      '+': () => zoom(0.6), '=': () => zoom(0.6), w: () => zoom(0.6), '-': () => zoom(1.6), s: () => zoom(1.6),
      0: fit, Home: fit, f: () => selectedBar && focus(selectedBar), ArrowUp: () => step(-1), ArrowDown: () => step(1),
      t: () => setScale(scale === 'steps' ? 'time' : 'steps'), n: () => go(1), p: () => go(-1),
      '/': () => $('search').focus(), '?': () => $('help').showModal(),
      Escape: () => { $('search').value = ''; search(''); select(-1); },
    }[event.key];
    if (does) { event.preventDefault(); does(); }
  });

  // ---- the page checks itself -----------------------------------------------

  const check = () => {
    const problems = [];
    const expect = (holds, words) => { if (!holds && problems.length < 20) problems.push(words); };
    const begun = lines.filter(line => [0, 1, 2].includes(line[EVENT])).length;
    const bars = lanes.flatMap(lane => lane.bars);
    const drawnBars = bars.filter(bar => bar[KIND] === CALL || bar[KIND] === CALLBACK);
    expect(drawnBars.length === begun, `${drawnBars.length} bars for ${begun} calls and callbacks`);
    for (const name of ['steps', 'time']) {
      setScale(name);
      for (let at = 0; at < count; at++) expect(place[at] < place[at + 1], `${name}: line ${at} is not before the next`);
      for (const lane of lanes) {
        const stack = [];
        for (const bar of lane.bars) {
          while (stack.length && right(stack.at(-1)) <= left(bar)) stack.pop();
          expect(left(bar) < right(bar), `${name}: ${lane.name}: bar at ${bar[FIRST]} has no width`);
          expect(stack.length === bar[DEPTH], `${name}: ${lane.name}: bar at ${bar[FIRST]} is ${stack.length} deep and says ${bar[DEPTH]}`);
          expect(!stack.length || right(bar) <= right(stack.at(-1)), `${name}: ${lane.name}: bar at ${bar[FIRST]} ends after what it is in`);
          stack.push(bar);
        }
      }
      // What is drawn can be found with the pointer, near and far.
      const some = bars.filter((bar, index) => index % Math.ceil(bars.length / 200) === 0);
      for (const bar of some) {
        focus(bar);
        setTop(bar.lane.top);
        paint();
        const rect = place2(bar), found = hit(rect.x + rect.w / 2, rect.y + rect.h / 2);
        const inside = found && (found.bar === bar || (found.bar && found.bar[KIND] === WAIT));
        expect(inside, `${name}: ${bar.lane.name}: the pointer does not find the bar at ${bar[FIRST]}`);
      }
      fit();
      setTop(0);
      paint();
      const before = drawn, started = performance.now();
      paint();
      expect(performance.now() - started < 500, `${name}: drawing takes ${Math.round(performance.now() - started)} ms`);
      expect(!bars.length || before > 0, `${name}: nothing is drawn`);
      const pixels = new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
      expect(new Set(pixels).size > 3, `${name}: the canvas is empty`);
    }
    if (count) {
      select(count - 1);
      expect(rowsBox.querySelector(`[data-line="${count - 1}"]`), 'the list does not reach the last line');
      const name = texts[lines[count - 1][TEXT]];
      search(name);
      expect(isMatch[count - 1] === 1, 'the search does not find the last line');
      search('');
      select(-1);
    }
    for (const theme of ['dark', 'light']) { setTheme(theme); paint(); }
    setScale('steps');
    const result = document.createElement('pre');
    result.id = 'check';
    result.hidden = true;
    result.textContent = JSON.stringify({ lines: count, events: begun, bars: drawnBars.length, lanes: lanes.length,
      waits: bars.filter(bar => bar[KIND] === WAIT).length, states: bars.filter(bar => bar[KIND] === STATE).length, errors, problems });
    document.body.append(result);
  };

  $('title').textContent = data.title || 'trace';
  $('about').textContent = `seed ${data.seed}, ${data.strategy} · ${count.toLocaleString('en')} lines · ${seconds(timeAt(count))} virtual seconds`;
  if (data.stop) {
    $('stop').hidden = false;
    $('stop').textContent = `${data.stop.name}: ${data.stop.message}`;
    $('stop').onclick = () => { select(-1); if (count) { reveal(count - 1); scrollTo(count - 1); } };
  }
  const wanted = location.hash.slice(1).split('&');
  const dark = wanted.includes('dark') || (!wanted.includes('light') && matchMedia('(prefers-color-scheme: dark)').matches);
  setTheme(dark ? 'dark' : 'light');
  setScale('steps');
  resize();
  fit();
  showDetails();
  addEventListener('resize', resize);
  if (wanted.includes('time')) setScale('time');
  if (wanted.includes('check')) {
    try { check(); } catch (error) { errors.push(String(error && error.stack || error)); }
    if (!$('check')) {
      const result = document.createElement('pre');
      result.id = 'check';
      result.textContent = JSON.stringify({ errors, problems: ['the check did not end'] });
      document.body.append(result);
    }
  }
  return { look, fit, zoom, select, search, setScale, setTheme, focus, lanes, lines, view, check, reveal };
})();
