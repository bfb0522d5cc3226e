export { backward } from './backward.js';
