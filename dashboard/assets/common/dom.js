// Makes nodes and changes them in place.
//
// Text is set as text and attributes as attributes: nothing that a daemon says is ever read as
// markup. Setters leave a node alone that has the value already, so an update of a hundred rows
// costs what has changed.

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @typedef {Record<string, unknown> & {on?: Record<string, (event: any) => void>}} Props
 * @typedef {Node | string | number | null | undefined | false} Child
 */

/**
 * An HTML element. `on` has its listeners; `true` sets an empty attribute, `false` and `null` none.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Props} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/**
 * An SVG element.
 * @param {string} tag
 * @param {Props} [props]
 * @param {...Child} children
 * @returns {SVGElement}
 */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/**
 * @template {Element} E
 * @param {E} element
 * @param {Props} props
 * @param {Child[]} children
 * @returns {E}
 */
function fill(element, { on = {}, ...attributes }, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  for (const [name, listener] of Object.entries(on)) element.addEventListener(name, listener);
  for (const child of children) {
    if (child !== null && child !== undefined && child !== false) {
      element.append(child instanceof Node ? child : String(child));
    }
  }
  return element;
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {unknown} value
 */
export function setAttribute(element, name, value) {
  if (value === false || value === null || value === undefined) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? '' : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/**
 * @param {Element} element
 * @param {string | number} value
 */
export function setText(element, value) {
  const text = String(value);
  const only = element.firstChild;
  if (only instanceof Text && only.nextSibling === null) {
    if (only.data !== text) only.data = text;
  } else if (only !== null || text !== '') {
    element.textContent = text;
  }
}

/**
 * A custom property or any other, by the object model: the page's policy has no inline styles.
 * @param {HTMLElement | SVGElement} element
 * @param {string} property
 * @param {string} value
 */
export function setStyle(element, property, value) {
  if (element.style.getPropertyValue(property) !== value) {
    element.style.setProperty(property, value);
  }
}

/**
 * @param {Element} element
 * @param {boolean} isHidden
 */
export function setHidden(element, isHidden) {
  setAttribute(element, 'hidden', isHidden);
}

/**
 * @template T
 * @typedef {{element: Element, update: (item: T) => void}} Part
 */

/**
 * Children that follow a list of items, each kept as long as its key is there.
 * @template T
 */
export class List {
  /**
   * @param {Element} parent
   * @param {(item: T) => string} key
   * @param {(item: T) => Part<T>} make
   */
  constructor(parent, key, make) {
    this.parent = parent;
    this.key = key;
    this.make = make;
    /** @type {Map<string, Part<T>>} */
    this.parts = new Map();
  }

  /** @param {T[]} items */
  update(items) {
    /** @type {Map<string, Part<T>>} */
    const parts = new Map();
    for (const item of items) {
      const key = this.key(item);
      const part = this.parts.get(key) ?? this.make(item);
      part.update(item);
      parts.set(key, part);
    }
    for (const [key, part] of this.parts) {
      if (!parts.has(key)) part.element.remove();
    }
    let next = this.parent.firstElementChild;
    for (const { element } of parts.values()) {
      if (element === next) next = next.nextElementSibling;
      else this.parent.insertBefore(element, next);
    }
    this.parts = parts;
  }
}
