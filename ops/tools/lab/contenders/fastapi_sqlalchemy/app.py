"""FastAPI with SQLAlchemy's async ORM on asyncpg, a session for each request, and a response model.

Pydantic writes the JSON in Rust, as FastAPI recommends now (ORJSONResponse is deprecated).
"""

import os
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import AliasPath, BaseModel, ConfigDict, Field
from sqlalchemy import ForeignKey, make_url, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class Category(Base):
    __tablename__ = "products_category"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str]
    name: Mapped[str]


class Product(Base):
    __tablename__ = "products_product"

    id: Mapped[int] = mapped_column(primary_key=True)
    low_price: Mapped[Decimal]
    high_price: Mapped[Decimal]
    demand_qty: Mapped[int]
    offers_qty: Mapped[int]
    bought_qty: Mapped[int]
    sold_qty: Mapped[int]
    time_created: Mapped[datetime]
    category_id: Mapped[int | None] = mapped_column(ForeignKey("products_category.id"))
    category: Mapped[Category | None] = relationship()


class ProductOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    low_price: Decimal
    high_price: Decimal
    demand_qty: int
    offers_qty: int
    bought_qty: int
    sold_qty: int
    time_created: datetime


class ProductDetail(ProductOut):
    category: str | None = Field(None, validation_alias=AliasPath("category", "slug"))


class Page(BaseModel):
    results: list[ProductOut]


engine = create_async_engine(make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+asyncpg"))
sessions = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


@app.get("/api/products", response_model=Page)
async def list_products(session: Session, limit: int = 100):
    query = select(Product).order_by(Product.time_created, Product.id).limit(limit)
    return {"results": (await session.scalars(query)).all()}


@app.get("/api/products/{product_id}", response_model=ProductDetail)
async def get_product(session: Session, product_id: int):
    product = await session.get(Product, product_id, options=[joinedload(Product.category)])
    if product is None:
        raise HTTPException(404)
    return product


class ProductInCategory(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    low_price: Decimal
    high_price: Decimal
    sold_qty: int


class CategoryDetail(BaseModel):
    id: int
    slug: str
    name: str
    newest: list[ProductInCategory]


@app.get("/api/categories/{category_id}", response_model=CategoryDetail)
async def get_category(session: Session, category_id: int):
    """Read a category and its newest products by two statements, as selectinload does, which has no limit."""
    category = await session.get(Category, category_id)
    if category is None:
        raise HTTPException(404)
    query = select(Product).where(Product.category_id == category_id)
    newest = await session.scalars(query.order_by(Product.time_created.desc(), Product.id.desc()).limit(20))
    return {"id": category.id, "slug": category.slug, "name": category.name, "newest": newest.all()}
