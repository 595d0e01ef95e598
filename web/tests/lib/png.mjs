// Reads screenshots: PNG with 8 bits a channel, RGB or RGBA, not interlaced.

import { inflateSync } from 'node:zlib';

/// `{ width, height, channels, data }`, rows from the top.
export function decode(png) {
  if (png.readUInt32BE(0) !== 0x89504e47) throw new Error('not a PNG');
  let at = 8;
  let head = null;
  const packed = [];
  while (at < png.length) {
    const length = png.readUInt32BE(at);
    const kind = png.toString('latin1', at + 4, at + 8);
    const body = png.subarray(at + 8, at + 8 + length);
    if (kind === 'IHDR') head = { width: body.readUInt32BE(0), height: body.readUInt32BE(4), depth: body[8], colour: body[9], interlaced: body[12] };
    if (kind === 'IDAT') packed.push(body);
    at += length + 12;
  }
  const channels = { 2: 3, 6: 4 }[head.colour];
  if (head.depth !== 8 || !channels || head.interlaced) throw new Error('a PNG of another kind than screenshots are');
  const { width, height } = head;
  const raw = inflateSync(Buffer.concat(packed));
  const row = width * channels;
  const data = Buffer.alloc(row * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (row + 1)];
    for (let x = 0; x < row; x++) {
      const left = x >= channels ? data[y * row + x - channels] : 0;
      const up = y ? data[(y - 1) * row + x] : 0;
      const corner = y && x >= channels ? data[(y - 1) * row + x - channels] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      data[y * row + x] = raw[y * (row + 1) + 1 + x] + guess;
    }
  }
  return { width, height, channels, data };
}

function paeth(a, b, c) {
  const [da, db, dc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
  return da <= db && da <= dc ? a : db <= dc ? b : c;
}

/// The share of pixels in which two pictures of one size differ by more than `least` in some channel.
export function difference(a, b, least = 12) {
  if (a.width !== b.width || a.height !== b.height) throw new Error('pictures of two sizes');
  let differ = 0;
  for (let i = 0; i < a.width * a.height; i++) {
    for (let c = 0; c < 3; c++) {
      if (Math.abs(a.data[i * a.channels + c] - b.data[i * b.channels + c]) > least) {
        differ++;
        break;
      }
    }
  }
  return differ / (a.width * a.height);
}

/// How many colours a picture has.
export function colours(picture) {
  const seen = new Set();
  for (let i = 0; i < picture.data.length; i += picture.channels) seen.add((picture.data[i] << 16) | (picture.data[i + 1] << 8) | picture.data[i + 2]);
  return seen.size;
}
