export { buildWordPiece, type WordPieceOptions } from './build-word-piece.js';
export { collateTexts, type TokenBatch } from './collate.js';
export { type EncodedPair, encodePair, type EncodePairOptions } from './encode-pair.js';
export { loadTokenizer } from './load-tokenizer.js';
export { type EncodeOptions, type PairEncoding, type SpecialRole, Tokenizer } from './tokenizer.js';
export { serializeTokenizer, type TokenizerFiles } from './tokenizer-files.js';
export { type BpeOptions, trainByteLevelBpe } from './train-bpe.js';
